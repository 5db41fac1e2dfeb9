"""Many at once on the workers of Ray Data.

    from penstock.many.ray import Ask
    from ray.data import ActorPoolStrategy

    asking = {"model": "gpt-4o-mini", "rpm": 5000, "workers": 4}
    batches = {"batch_format": "pyarrow", "batch_size": 512, "compute": ActorPoolStrategy(size=4)}
    dataset.map_batches(Ask, fn_constructor_kwargs=asking, **batches)

A batch is answered before the next one is begun, so that small ones leave workers waiting.
"""

from typing import Any

from ..errors import BadRequestError
from .tables import Share


class Ask(Share):
    """For `map_batches`: asks a model for each row, and gives the batch back with the results in columns of their own.

    Each of the actors is a worker: `workers` is the size of their pool. Arguments and errors are Share's.
    """

    def __call__(self, batch: Any) -> Any:
        """The batch with its results.

        Raises:
            BadRequestError: it is no Arrow table.
        """
        if not hasattr(batch, "__arrow_c_stream__"):
            raise BadRequestError(f"map_batches needs batch_format='pyarrow': this is a {type(batch).__name__}")
        (answered,) = self.answers([batch])
        return answered
