"""The tasks by their names. Importing this is cheap: a task's module is imported when the task is built."""

from importlib import import_module

from robustbert.finetune.settings import FinetuneError

_GLUE = "robustbert.finetune.tasks.glue"
# name -> the module whose build(name) makes the Task
MODULES = {
    **dict.fromkeys(("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli"), _GLUE),
    **dict.fromkeys(("squad1.1", "squad2.0"), "robustbert.finetune.tasks.squad.task"),
    "qnli-ranking": "robustbert.finetune.tasks.qnli_ranking",
    "wnli-ranking": "robustbert.finetune.tasks.winograd.task",
    "race": "robustbert.finetune.tasks.race.task",
}


def build_task(name: str):
    """The Task of this name."""
    if name not in MODULES:
        raise FinetuneError(f"there is no task {name!r}; known are {', '.join(MODULES)}")
    return import_module(MODULES[name]).build(name)
