"""The tasks by their names. Importing this is cheap: a task's module is imported when the task is built."""

from importlib import import_module

from robustbert.finetune.settings import FinetuneError

GLUE = ("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli")
FROM_MNLI = ("rte", "sts-b", "mrpc")  # the paper finetunes these from the model of MNLI (section 5.1)
# name -> the module whose build(name) makes the Task
MODULES = {
    **dict.fromkeys(GLUE, "robustbert.finetune.tasks.glue"),
    **dict.fromkeys(("squad1.1", "squad2.0"), "robustbert.finetune.tasks.squad.task"),
    "race": "robustbert.finetune.tasks.race.task",
    # The paper's own forms of two of GLUE's tasks
    "qnli-ranking": "robustbert.finetune.tasks.qnli_ranking",
    "wnli-ranking": "robustbert.finetune.tasks.winograd.task",
}


def build_task(name: str):
    """The Task of this name."""
    if name not in MODULES:
        raise FinetuneError(f"there is no task {name!r}; known are {', '.join(MODULES)}")
    return import_module(MODULES[name]).build(name)
