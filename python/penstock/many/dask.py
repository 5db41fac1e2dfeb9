"""Many at once on the workers of Dask.

    from penstock.many.dask import Ask, meta

    frame.map_partitions(Ask(model="gpt-4o-mini", rpm=5000, workers=8), meta=meta(frame))

A partition is asked as one run. A frame that is computed twice is paid for twice: persist it, or write it.
"""

from typing import Any

from .tables import RESULTS, Share, empty, refuse_taken


class Ask(Share):
    """For `map_partitions`: asks a model for each row, and gives the frame back with the results in columns of Arrow's.

    Each partition that is computed is a worker: `workers` is how many are at the same time. Arguments and errors are
    Share's.
    """

    def __call__(self, frame: Any) -> Any:
        """The pandas frame with its results."""
        import pyarrow as pa

        asked = frame[self.asked(list(frame.columns))]
        (answered,) = self.answers([pa.Table.from_pandas(asked, preserve_index=False)])
        return _with(frame, answered)


def meta(frame: Any) -> Any:
    """What `map_partitions` gives for a frame, without rows. Dask would find it out by asking the model.

    Raises:
        BadRequestError: a column has the name of a result.
    """
    from dask.dataframe.dispatch import make_meta

    refuse_taken(frame.columns)
    return _with(make_meta(frame), empty())


def _with(frame: Any, answered: Any) -> Any:
    import pandas as pd

    results = answered.select(list(RESULTS)).to_pandas(types_mapper=pd.ArrowDtype)
    return frame.assign(**{name: results[name].array for name in RESULTS})  # by place: an index may repeat itself
