"""Client and worker for MAOS, the multi-agent orchestration system."""

from .client import MAOSClient, MAOSError
from .worker import Failed, GaveUp, Subtasks, Task, Worker

__all__ = ["Failed", "GaveUp", "MAOSClient", "MAOSError", "Subtasks", "Task", "Worker"]
__version__ = "0.1.0"
