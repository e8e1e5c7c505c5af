"""What a front and the engine say to each other about inference, as the bodies of a link's frames."""

from __future__ import annotations

import struct

LAYOUT, TRACE, INFER, CANCEL, REFUSED, WITHDRAWN, RESULT, FAILURE, RELEASED = range(2, 11)
"""The kinds of frames, besides a link's own. A TRACE is the trace context, pickled, of the INFER that follows it."""

INFER_HEAD = struct.Struct("<QIIqIIddd")
"""Request number; version number; layout; offset in the arena, or INLINE where the tensors follow; rows; priority;
moment of arrival, deadline and longest time in the queue in seconds, NaN for none."""
RESULT_HEAD = struct.Struct("<QQIIdddd")
"""Request number; rows that wait for the version; layout of the outputs, which follow; batch size; queue, assembly,
inference and output time in seconds."""
FAILURE_HEAD = struct.Struct("<QQ")
"""Request number; rows that wait for the version. The error follows, pickled."""
NUMBER = struct.Struct("<Q")
"""Request number of a CANCEL, and of a RELEASED: the engine reads its tensors no more. A RESULT says that too; one of
the two ends every request. Version number of a REFUSED, a request that a front has not let in for a full queue, and of
a WITHDRAWN: a front has no more requests for that version."""
INLINE = -1
