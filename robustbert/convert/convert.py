"""convert: a model of any format into another one, checked by its logits before it counts."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robustbert.convert.errors import ConversionError
from robustbert.convert.fairseq import write_fairseq
from robustbert.convert.huggingface import write_huggingface
from robustbert.convert.sources import FORMATS, Model, Source, find_source, read_model, reader_of_result
from robustbert.convert.verify import TOLERANCE, Comparison, compare, read_passages
from robustbert.convert.whole_model import one_process_mesh, save_checkpoint
from robustbert.parallel.mesh import Mesh

__all__ = ["Conversion", "ConversionError", "convert"]


@dataclass(frozen=True)
class Conversion:
    """What was converted. notes: what the target's format cannot say, what was changed on the way; one line each."""

    source: Source
    output: Path
    to: str
    num_parameters: int
    comparison: Comparison
    notes: tuple[str, ...]

    @property
    def max_logit_difference(self) -> float:
        """Over text and random tokens."""
        return self.comparison.largest


def convert(
    source: Path,
    to: str,
    output: Path,
    tokenizer_dir: Path | None = None,
    text: Path | None = None,
    progress: Callable[[str], None] = lambda stage: None,
    head_seed: int | None = None,
) -> Conversion:
    """Convert `source` to the folder `output`, which must not exist.

    source: a run's directory (its newest checkpoint), a checkpoint, a folder of Hugging Face's RobertaForMaskedLM, or
    fairseq's (or its model file). to: one of FORMATS. tokenizer_dir: where the source has none beside it. text: a file to
    compare with, by default the prose inside Python. progress: called with what is being done. head_seed: an encoder
    without a masked-language-model head gets one that is drawn from this seed; by default it is refused.
    The result's logits are compared with the source's, by each format's own library, on the text and on random tokens;
    more than 1e-4 apart is a ConversionError.
    """
    if output.exists():
        raise ConversionError(f"{output} exists; nothing is overwritten, choose another --output")
    if to not in FORMATS:
        raise ConversionError(f"cannot convert to {to!r}; known are {', '.join(FORMATS)}")
    found = find_source(source)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".partial_{output.name}_", dir=output.parent))
    partial = staging / output.name
    try:
        with one_process_mesh() as mesh:
            progress(f"reading {found.path}")
            model = read_model(found, tokenizer_dir, mesh, head_seed)
            _refuse_non_finite(model, found.path)
            passages = read_passages(text, model.tokenizer.special_tokens)
            progress(f"writing {output}")
            notes = _write(partial, model, to, output, mesh, origin=str(found.path))
            notes = [*model.notes, *notes]
            num_parameters = model.whole.num_parameters
            sides, config = (model.reader, reader_of_result(partial, to, model, mesh)), model.whole.config
            del model  # its memory is the readers' now
            comparison = compare(*sides, config, passages, progress)
        if not comparison.largest <= TOLERANCE:
            raise ConversionError(
                f"the logits of source and result differ by {comparison.largest:.2e}, more than {TOLERANCE:g}; not converted"
            )
        if output.exists():
            raise ConversionError(f"{output} was made by another process in the meantime; nothing is overwritten")
        partial.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Conversion(found, output, to, num_parameters, comparison, tuple(notes))


def _refuse_non_finite(model: Model, source: Path) -> None:
    for name, tensor in model.whole.state.items():
        count = tensor.numel() - int(tensor.isfinite().sum())
        if count:
            raise ConversionError(
                f"{source}: {count} of the {tensor.numel()} values of {name} are NaN or infinite; its training diverged, "
                "or the file is damaged: take an earlier checkpoint"
            )


def _write(folder: Path, model: Model, to: str, final: Path, mesh: Mesh, origin: str) -> list[str]:
    """Write the model in the format `to`; returns notes."""
    if to == "huggingface":
        write_huggingface(folder, model.whole, model.tokenizer)
    elif to == "fairseq":
        return write_fairseq(folder, model.whole, model.tokenizer, final)
    else:
        save_checkpoint(folder, model.whole, mesh, origin)
        model.tokenizer.save(folder / "tokenizer")
    return []
