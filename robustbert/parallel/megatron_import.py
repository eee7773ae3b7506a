"""The first import of megatron-core: which versions this project runs on, and what differs between them.

Pinned and tested by every CI run is 0.16.1, the last one for Python 3.11; 0.17.0, 0.18.2 and 0.19.2 (Python 3.12) run the same tests.
What changed on the way, and where it is met:

- from 0.17 on Adam is given `capturable` (optim/fused_adam.py and fused_lamb.py take it, and only False);
- split layers mark their own parameters although they do not initialise them (layers.mark_split marks all, or repeats the same);
- the gradient buffer asks for torch.cuda.current_stream without CUDA, too (cpu_megatron.py answers);
- 0.19 warns of every wrapped model that it plans the gradient buffer itself, as it always did (the warning is filtered here);
- from 0.18 on `triton` is imported, which megatron-core does not require and torch's CPU build does not bring (setup.py requires it).

megatron-core hands some fused activations to torch.compile while it is imported, which loads the whole compiler (a third of a
process' start). They are not used here, so its first import takes place without.
"""

import logging
import warnings

import torch

_FIRST, _BEYOND = (0, 16, 1), (0, 20)


def import_megatron() -> None:
    """Import megatron-core; ImportError with the way out if it is of a version that nobody has tried, or lacks triton."""
    compile_function = torch.compile
    torch.compile = lambda function=None, **_: function if function is not None else (lambda decorated: decorated)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="megatron")  # of all that could be installed
            import megatron.core

            check_version(megatron.core.__version__)
            import megatron.core.pipeline_parallel  # noqa: F401  where triton is asked for

        logging.getLogger("megatron.core.distributed.distributed_data_parallel").addFilter(_is_worth_saying)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ImportError("megatron-core 0.18 and later import triton without requiring it: pip install triton", name="triton") from None
    finally:
        torch.compile = compile_function


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return "full_param_layout not provided" not in record.getMessage()


def check_version(version: str) -> None:
    """ImportError if the version of megatron-core is not among those that this project runs on."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not _FIRST <= numbers < _BEYOND:
        raise ImportError(f"megatron-core {version} is not supported: pip install 'megatron-core>=0.16.1,<0.20'")
