#!/usr/bin/env python
"""Ask a registered model about one post.

python scripts/answer.py --agent criteria --criterion SLEEP_ISSUES --post "..."
"""

import argparse
import json
import logging

import mlflow
import pandas as pd

from lightning_hpo.databases import default_tracking_uri


def main() -> None:
    """Load the production model of an agent and print its answer as a line of JSON."""
    parser = argparse.ArgumentParser(description="Ask a registered model about one post.")
    parser.add_argument("--agent", choices=["criteria", "evidence"], required=True)
    parser.add_argument("--criterion", required=True, help="a criterion's id, or a text of one's own")
    parser.add_argument("--post", required=True, help="the post")
    given = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(default_tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{given.agent}-best-model@production")
    answers = model.predict(pd.DataFrame({"criterion": [given.criterion], "post": [given.post]}))
    for answer in answers.to_dict("records"):
        print(json.dumps({"agent": given.agent, "criterion": given.criterion, **answer}))


if __name__ == "__main__":
    main()
