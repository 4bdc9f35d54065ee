from relayd.settings import resolve

__all__ = ["resolve"]
