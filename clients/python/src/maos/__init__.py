"""Client and worker for MAOS, the multi-agent orchestration system."""

from .client import MAOSClient, MAOSError
from .worker import Failed, Task, Worker

__all__ = ["Failed", "MAOSClient", "MAOSError", "Task", "Worker"]
__version__ = "0.1.0"
