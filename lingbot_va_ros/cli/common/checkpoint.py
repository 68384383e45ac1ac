"""Which checkpoint is driven: the user's, the shipped one, or an untrained one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import hashlib
from pathlib import Path
import subprocess
import sys

from lingbot_va_ros.atomic_files import atomic_folder
from lingbot_va_ros.cli.common.failure import CommandFailed, last_lines, one_line
from lingbot_va_ros.resources import PACKAGE, share_folder, shared_file
from lingbot_va_ros.specs.policy_file import (
    find_policy_file,
    load_policy_file,
    PolicyFile,
    PolicyFileError,
)

SHIPPED = ('models', 'lingbot-va-tiny')
_MADE_FROM = 'made_from.txt'
_WRITE = (
    'import sys; from pathlib import Path; '
    f'from {PACKAGE}.model.random_checkpoint import write_untrained_checkpoint; '
    'write_untrained_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))')


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and what its policy file says."""

    folder: Path
    policy: PolicyFile

    @property
    def trained(self) -> bool:
        """Whether its weights have learned anything."""
        return self.policy.trained

    @property
    def chunk_seconds(self) -> float:
        """How long a chunk lasts, in s."""
        policy = self.policy
        return policy.frames_per_chunk * policy.actions_per_frame * policy.action_period

    @property
    def label(self) -> str:
        """The name that people read; says so where the weights are random."""
        return self.folder.name if self.trained else f'{self.folder.name} (UNTRAINED)'


def choose_checkpoint(
    chosen: Path | None, cache: Path, environment: Mapping[str, str],
    say: Callable[[str], None], shipped: bool = True,
) -> Checkpoint:
    """
    Return the checkpoint to drive.

    :param chosen: what the user asked for; None takes the shipped one, and where that is not
        there an untrained one, which is made once in the folder `cache`.
    :param shipped: whether the shipped one will do, which knows its own tasks alone.
    :raises CommandFailed: in one line what is missing or wrong.
    """
    ready = share_folder().joinpath(*SHIPPED)
    if chosen is not None:
        folder = chosen.expanduser()
        if not folder.is_dir():
            raise CommandFailed(f'checkpoint {folder} is not a folder')
    elif shipped and ready.is_dir():
        folder = ready
    else:
        folder = _untrained(cache, environment, say)
    folder = folder.resolve()
    try:
        policy = load_policy_file(find_policy_file('', folder))
    except (PolicyFileError, OSError) as error:
        raise CommandFailed(f'checkpoint {folder}: {one_line(error)}') from error
    return Checkpoint(folder, policy)


def _untrained(folder: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """Make the untrained checkpoint, unless it is there and made from the same files."""
    policy_file = shared_file('config', 'policies', 'untrained.yaml')
    sources = (policy_file, *sorted((Path(__file__).parents[2] / 'model').glob('*.py')))
    made_from = hashlib.sha256(b''.join(file.read_bytes() for file in sources)).hexdigest()
    mark = folder / _MADE_FROM
    if mark.is_file() and mark.read_text() == made_from:
        return folder
    say('making an UNTRAINED checkpoint (random weights) …')
    log = folder.with_name(f'{folder.name}.log')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as unfinished:
        with open(log, 'wb') as output:
            # In another process: this one has no use for torch.
            code = subprocess.run(
                [sys.executable, '-c', _WRITE, str(unfinished), str(policy_file)],
                env=dict(environment), stdout=output, stderr=subprocess.STDOUT).returncode
        if code:
            raise CommandFailed(
                f'the untrained checkpoint cannot be made: {(last_lines(log, 1) or ["?"])[0]}',
                log)
        (unfinished / _MADE_FROM).write_text(made_from)
    log.unlink()
    return folder
