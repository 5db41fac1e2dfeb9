"""Many at once on the workers of Spark.

    from penstock.many.spark import Ask, schema

    frame.repartition(64).mapInArrow(Ask(model="gpt-4o-mini", rpm=5000, workers=16), schema(frame))

A partition is asked as one run, whatever the size of its batches.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from .tables import RESULTS, Share, refuse_taken


class Ask(Share):
    """For `mapInArrow`: asks a model for each row, and gives the rows back with the results in columns of their own.

    Each task is a worker: `workers` is how many run at the same time, which are the executors' cores, or the partitions
    if there are less of them. Arguments and errors are Share's.
    """

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The record batches of a partition with their results, asked for beyond the end of a batch."""
        return self.answers(batches)


def schema(frame: Any) -> Any:
    """The StructType of a frame with its results.

    Raises:
        BadRequestError: a column has the name of a result.
    """
    from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

    refuse_taken(frame.columns)
    types = {"string": StringType, "int64": LongType, "double": DoubleType}
    return StructType([*frame.schema.fields, *(StructField(name, types[kind]()) for name, kind in RESULTS.items())])
