"""Names of the files in a trial's folder; apart, so that whoever looks at folders need not import Lightning."""

__all__ = ["BEST", "CONFIG", "LAST", "PARTIAL", "PREVIOUS", "RESUME"]

CONFIG = "config.yaml"
BEST = "best.ckpt"
LAST, PREVIOUS, PARTIAL = "last.ckpt", "previous.ckpt", "last.ckpt.partial"
RESUME = (LAST, PREVIOUS, PARTIAL)
