// The table of reductions: a header each, which describes it whole (reductions/reduction.h). A line
// here is all that a new reduction needs to be compiled for each instruction set and bound to
// Python.
#pragma once

#include "reductions/corrected_primal.h"
#include "reductions/cost_product.h"
#include "reductions/costs.h"
#include "reductions/ctransform.h"
#include "reductions/gradient_tangent.h"
#include "reductions/marginals.h"
#include "reductions/plan_cost.h"
#include "reductions/plan_gradient.h"
#include "reductions/plan_matrix.h"
#include "reductions/plan_product.h"
#include "reductions/softmin.h"
#include "reductions/tangent_marginals.h"
#include "reductions/weighted_gradient.h"
#include "reductions/weighted_marginals.h"
#include "reductions/weighted_plan.h"
