from privileged_house import build, helper

__all__ = ["build", "helper"]
