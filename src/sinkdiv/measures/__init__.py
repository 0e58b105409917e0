"""What a user gives, checked once at the door: `samples`, `matrices` of costs, and the `weights` of both.

`normalisation` makes masses equal and centres points; `forms` leads from the caller's shapes and dtypes to ours and
back.
"""

from sinkdiv.measures.forms import Form, Measures, given_form
from sinkdiv.measures.matrices import CostMatrix, check_matrix
from sinkdiv.measures.normalisation import center_of, equalised
from sinkdiv.measures.samples import SAMPLES, Clouds, Samples, check_any, check_ragged, check_samples, is_list_of_clouds

__all__ = [
    "SAMPLES",
    "Clouds",
    "CostMatrix",
    "Form",
    "Measures",
    "Samples",
    "center_of",
    "check_any",
    "check_matrix",
    "check_ragged",
    "check_samples",
    "equalised",
    "given_form",
    "is_list_of_clouds",
]
