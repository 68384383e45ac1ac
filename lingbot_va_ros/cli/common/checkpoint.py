"""Choose the checkpoint to run: the user's, the shipped one, or an untrained one."""

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
    f'from {PACKAGE}.model.random_checkpoint import write_random_checkpoint; '
    'write_random_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))')


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and its policy file."""

    folder: Path
    policy: PolicyFile

    @property
    def trained(self) -> bool:
        """Whether the weights are trained."""
        return self.policy.trained

    @property
    def chunk_seconds(self) -> float:
        """Duration of a chunk, s."""
        policy = self.policy
        return policy.frames_per_chunk * policy.actions_per_frame * policy.action_period

    @property
    def label(self) -> str:
        """Name for display, marked UNTRAINED if the weights are random."""
        return self.folder.name if self.trained else f'{self.folder.name} (UNTRAINED)'


def choose_checkpoint(
    chosen: Path | None, cache: Path, environment: Mapping[str, str],
    say: Callable[[str], None], shipped: bool = True,
) -> Checkpoint:
    """
    Return the checkpoint to run.

    :param chosen: the user's folder; None takes the shipped checkpoint, or if there is none an
        untrained one, which is created once in the folder `cache`.
    :param shipped: whether the shipped checkpoint was trained on the tasks.
    :raises CommandFailed: the folder or its policy file is missing or invalid.
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
    """Create the untrained checkpoint, unless it exists and its sources are unchanged."""
    policy_file = shared_file('config', 'policies', 'untrained.yaml')
    sources = (policy_file, *sorted((Path(__file__).parents[2] / 'model').glob('*.py')))
    made_from = hashlib.sha256(b''.join(file.read_bytes() for file in sources)).hexdigest()
    mark = folder / _MADE_FROM
    if mark.is_file() and mark.read_text() == made_from:
        return folder
    say('creating an UNTRAINED checkpoint (random weights) …')
    log = folder.with_name(f'{folder.name}.log')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as unfinished:
        with open(log, 'wb') as output:
            # In another process: this one does not need torch.
            code = subprocess.run(
                [sys.executable, '-c', _WRITE, str(unfinished), str(policy_file)],
                env=dict(environment), stdout=output, stderr=subprocess.STDOUT).returncode
        if code:
            raise CommandFailed(
                f'the untrained checkpoint cannot be created: {(last_lines(log, 1) or ["?"])[0]}',
                log)
        (unfinished / _MADE_FROM).write_text(made_from)
    log.unlink()
    return folder
