#!/usr/bin/env python
"""Predict with a registered model for one post.

python scripts/answer.py --agent criteria --criterion SLEEP_ISSUES --post "..."
"""

import argparse
import json
import logging

import mlflow
import pandas as pd

from lightning_hpo.databases import default_tracking_uri


def main() -> None:
    """Load the production model of an agent, and print its predictions as lines of JSON."""
    parser = argparse.ArgumentParser(description="Predict with a registered model for one post.")
    parser.add_argument("--agent", choices=["criteria", "evidence", "joint"], required=True)
    parser.add_argument("--criterion", required=True, help="id or text of the criterion")
    parser.add_argument("--post", required=True, help="text of the post")
    given = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(default_tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{given.agent}-best-model@production")
    predictions = model.predict(pd.DataFrame({"criterion": [given.criterion], "post": [given.post]}))
    for prediction in predictions.to_dict("records"):
        print(json.dumps({"agent": given.agent, "criterion": given.criterion, **prediction}))


if __name__ == "__main__":
    main()
