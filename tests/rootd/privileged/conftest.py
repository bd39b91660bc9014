from privileged_house import build

__all__ = ["build"]
