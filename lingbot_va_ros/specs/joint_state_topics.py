"""The topics of an embodiment file on which measured joints come, and whose names they have."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lingbot_va_ros.specs.yaml_lines import KeyPath, Mistake


@dataclass(frozen=True)
class JointStateTopic:
    """
    One topic of joint states.

    :param prefix: stands before each of the driver's names in ours.
    :param names: the driver's names, by ours; the topic then brings these joints alone.
    :param timeout: seconds after which its joints count as lost; None: as the reader says.
    """

    topic: str = 'joint_states'
    prefix: str = ''
    names: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None

    def our_names(self, names: Sequence[str]) -> Sequence[str]:
        """Return our names of a message's joints; those that are none of ours are empty."""
        if self.names:
            ours = {driver: our for our, driver in self.names.items()}
            return [ours.get(name, '') for name in names]
        return [self.prefix + name for name in names] if self.prefix else names

    def brings(self, joint: str) -> bool:
        """Return whether a joint of ours may come on this topic."""
        return joint in self.names if self.names else joint.startswith(self.prefix)


DEFAULT_TOPICS = (JointStateTopic(),)


def topic_of_joint(topics: Sequence[JointStateTopic], joint: str) -> JointStateTopic:
    """Return the topic on which a joint is expected: the one that says most of its name."""
    return max(
        (topic for topic in topics if topic.brings(joint)),
        key=lambda topic: len(joint) + 1 if topic.names else len(topic.prefix))


def read_joint_state_topics(
    given: list[dict[str, Any] | str] | None, joints: Collection[str], mistakes: list[Mistake],
) -> tuple[JointStateTopic, ...]:
    """
    Return the topics of joint states; left out, it is `joint_states`.

    :param given: entries of the file; a text is a topic alone.
    :param joints: of the robot.
    :param mistakes: gets what the schema cannot find.
    """
    if given is None:
        return DEFAULT_TOPICS
    entries: list[dict[str, Any]] = [
        {'topic': entry} if isinstance(entry, str) else entry for entry in given]
    topics = tuple(
        JointStateTopic(
            entry['topic'], entry.get('prefix', ''), dict(entry.get('names', {})),
            entry.get('timeout'))
        for entry in entries)
    named: dict[str, int] = {}
    begins: set[tuple[str, str]] = set()
    for index, (entry, topic) in enumerate(zip(entries, topics, strict=True)):
        at: KeyPath = ('joint_states', index)
        if 'prefix' in entry and 'names' in entry:
            mistakes.append(((*at, 'prefix'), 'give prefix or names, not both'))
        if not topic.names and (topic.topic, topic.prefix) in begins:
            mistakes.append(((*at, 'topic'), f"topic '{topic.topic}' appears twice"))
        begins.add((topic.topic, topic.prefix))
        for name in topic.names:
            place = (*at, 'names', name)
            if name not in joints:
                mistakes.append((place, f"'{name}' is not a joint of the robot"))
            elif name in named:
                mistakes.append((place, f"joint '{name}' comes on another topic already"))
            named[name] = index
        drivers = list(topic.names.values())
        mistakes += [((*at, 'names'), f"the driver's name '{name}' stands for two joints")
                     for name in sorted({name for name in drivers if drivers.count(name) > 1})]
        if not topic.names and not any(topic.brings(joint) for joint in joints):
            mistakes.append(((*at, 'prefix'), f"no joint begins with '{topic.prefix}'"))
    mistakes += [(('joint_states',), f"no topic brings joint '{joint}'")
                 for joint in joints if not any(topic.brings(joint) for topic in topics)]
    return topics
