"""SQuAD's models: transformers' question answering, and for 2.0 the same with a classifier of answerability beside it."""

import torch

from robustbert.finetune.models import encoder_with_new_head, load_finetuned, read_config
from robustbert.finetune.task import ModelSource


class Answerability(torch.nn.Module):
    """x_BH at the first token -> the logit of there being no answer, (B,): RoBERTa's head of sentence classification."""

    def __init__(self, config):
        super().__init__()
        self.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = torch.nn.Linear(config.hidden_size, 1)

    def forward(self, x_BH: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x_BH = torch.tanh(self.dense(self.dropout(x_BH)))
        return self.out_proj(self.dropout(x_BH))[:, 0]


def build_span_model(source: ModelSource, with_answerability: bool) -> torch.nn.Module:
    """The pretrained encoder with a new span head, and perhaps a classifier of answerability."""
    if with_answerability:
        return encoder_with_new_head(source, _answerability_class(read_config(source)))
    from transformers import AutoModelForQuestionAnswering

    return encoder_with_new_head(source, AutoModelForQuestionAnswering.from_config)


def load_span_model(folder, with_answerability: bool) -> torch.nn.Module:
    """What save_pretrained of such a model wrote."""
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    if with_answerability:
        return load_finetuned(folder, _answerability_class(AutoConfig.from_pretrained(folder)))
    return load_finetuned(folder, AutoModelForQuestionAnswering)


def span_scores(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """start_BS, end_BS and the logit of no answer (B,), None of a model without that classifier; fp32.

    Scores at padding are the lowest number: they take no part in a softmax.
    """
    x_BSH = model.base_model(**inputs)[0]
    start_BS, end_BS = model.qa_outputs(x_BSH).float().unbind(-1)
    is_padding_BS = inputs["attention_mask"] == 0
    lowest = torch.finfo(torch.float32).min
    start_BS, end_BS = (scores.masked_fill(is_padding_BS, lowest) for scores in (start_BS, end_BS))
    answerability = getattr(model, "answerability", None)
    return start_BS, end_BS, None if answerability is None else answerability(x_BSH[:, 0]).float()


def _answerability_class(config) -> type:
    """transformers' question answering class for this configuration, with an Answerability as `answerability`.

    It keeps the name of its base: its folder opens as that in transformers, without the classifier.
    """
    from transformers import AutoModelForQuestionAnswering

    with torch.device("meta"):
        base = type(AutoModelForQuestionAnswering.from_config(config))

    def init(self, config):
        base.__init__(self, config)
        self.answerability = Answerability(config)
        self.post_init()

    return type(base.__name__, (base,), {"__init__": init, "__module__": __name__})
