"""The files of a prediction: those that the official scorers read, and the n best answers of every question.

predictions.json: id to text, empty for no answer. For 2.0 also no_answer_probabilities.json (evaluate-v2.0.py's
--na-prob-file) and spans.json, the best text of every question, answered or not: what its best thresholds are sought with.
"""

import json

from robustbert.finetune.tasks.squad.answers import Prediction


def file_contents(predictions: list[Prediction], threshold: float) -> dict[str, str]:
    """Name to text of every file of a prediction; the probability of no answer decides above the threshold."""
    contents = {
        "predictions.json": {p.id: p.decided_text(threshold) for p in predictions},
        "n_best.json": {p.id: [{"text": text, "probability": share} for text, share in p.texts] for p in predictions},
    }
    if all(p.no_answer is not None for p in predictions):
        contents |= {
            "spans.json": {p.id: p.best_text for p in predictions},
            "no_answer_probabilities.json": {p.id: p.no_answer for p in predictions},
        }
    return {name: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for name, content in contents.items()}
