"""Records the episodes of the scripted experts."""

from lingbot_va_ros.training.expert_recording import record_missing, RecordingOptions
from lingbot_va_ros.training.run_folder import RunFolder


def record_data(run: RunFolder, processes: int = 1) -> bool:
    """Record the missing episodes; return whether all are recorded."""
    data = run.settings.data
    options = RecordingOptions(run.cameras, run.size, data.idle, data.longest)
    for task in run.settings.tasks:
        done = len(run.recordings(task))
        for _ in record_missing(run.data, task, run.seeds, options, processes):
            done += 1
            run.report({'stage': 'data', 'task': task, 'step': done, 'steps': data.episodes})
            if run.stop():
                return False
    return True
