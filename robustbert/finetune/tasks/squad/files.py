"""The files of a prediction: those that the official scorers read, and the n best answers of every question.

predictions_SPLIT.json: id to text, empty for no answer. For 2.0 also no_answer_probabilities_SPLIT.json (the official
scorer's --na-prob-file) and spans_SPLIT.json, the best text of every question, answered or not: what the scorer seeks its
best thresholds with.
"""

import json

from robustbert.finetune.tasks.squad.answers import Prediction


def file_contents(split: str, predictions: list[Prediction], threshold: float) -> dict[str, str]:
    """Name to text of every file of a prediction; above the threshold the probability of no answer decides."""
    contents = {
        "predictions": {p.id: p.decided_text(threshold) for p in predictions},
        "n_best": {p.id: [{"text": text, "probability": share} for text, share in p.texts] for p in predictions},
    }
    if all(p.no_answer is not None for p in predictions):
        contents |= {
            "spans": {p.id: p.best_text for p in predictions},
            "no_answer_probabilities": {p.id: p.no_answer for p in predictions},
        }
    return {
        f"{name}_{split}.json": json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        for name, content in contents.items()
    }
