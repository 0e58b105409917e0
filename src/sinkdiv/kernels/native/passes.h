// The passes over rows [begin, end) of one problem, for one instruction set. See pairs.h for what each computes.
//
// All have one shape: for each tile of columns and each group of ROWS rows, the costs go to a buffer in the first
// cache, then a reduction consumes the buffer. Sums run in vectors within a tile and in double across tiles, so that
// a float32 sum over a million columns keeps its digits.
#pragma once

#include "pairs.h"
#include "simd.h"

namespace sinkdiv::SINKDIV_ISA {

constexpr double LN2 = 0.69314718055994530942;

// Coordinates whose contributions are added in a row; longer sums are made of such runs, and keep two more digits.
constexpr int64_t RUN_OF_COORDINATES = 64;

// Adds the contributions of coordinates [from, to) to ROWS x (VECTORS vectors) of sums.
template <class T, Form FORM>
inline void add_coordinates(const T* const* x, const T* y, int64_t width, int64_t from, int64_t to,
                            Vector<T> (&sum)[ROWS][VECTORS]) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t k = from; k < to; ++k) {
        Vector<T> columns[VECTORS];
        for (int c = 0; c < VECTORS; ++c) columns[c] = load(y + k * width + c * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Vector<T> own = fill(x[r][k]);
#pragma GCC unroll 8
            for (int c = 0; c < VECTORS; ++c) {
                if constexpr (FORM == Form::squared_product) {
                    sum[r][c] += own * columns[c];
                } else {
                    const Vector<T> difference = own - columns[c];
                    sum[r][c] += difference * difference;
                }
            }
        }
    }
}

template <class T, Form FORM>
inline void group_costs(const Pairs<T>& p, int64_t row, int64_t tile, T* costs) {
    constexpr int LANES = Simd<T>::LANES;
    const T* x[ROWS];
    for (int r = 0; r < ROWS; ++r) x[r] = p.x + (row + r < p.n ? row + r : p.n - 1) * p.d;
    const T* y = p.y + tile * p.d * p.width;
    for (int64_t j = 0; j < p.width; j += VECTORS * LANES) {
        Vector<T> sum[ROWS][VECTORS] = {};
        add_coordinates<T, FORM>(x, y + j, p.width, 0, p.d < RUN_OF_COORDINATES ? p.d : RUN_OF_COORDINATES, sum);
        for (int64_t from = RUN_OF_COORDINATES; from < p.d; from += RUN_OF_COORDINATES) {
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < VECTORS; ++c) {
                    T* const so_far = costs + r * p.width + j + c * LANES;
                    store(so_far, from == RUN_OF_COORDINATES ? sum[r][c] : load(so_far) + sum[r][c]);
                    sum[r][c] = Vector<T>{};
                }
            const int64_t to = from + RUN_OF_COORDINATES;
            add_coordinates<T, FORM>(x, y + j, p.width, from, to < p.d ? to : p.d, sum);
        }
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < VECTORS; ++c) {
                T* const result = costs + r * p.width + j + c * LANES;
                Vector<T> cost = p.d > RUN_OF_COORDINATES ? load(result) + sum[r][c] : sum[r][c];
                if constexpr (FORM == Form::squared_product) {
                    const T square = p.x_squares[row + r < p.n ? row + r : p.n - 1];
                    const Vector<T> squares = square + load(p.y_squares + tile * p.width + j + c * LANES);
                    cost = larger(squares - T(2) * cost, fill(T(0)));
                }
                if constexpr (FORM == Form::distance) cost = root(cost);
                store(result, cost);
            }
    }
}

template <class T>
inline void matrix_costs(const Pairs<T>& p, int64_t row, int64_t tile, T* costs) {
    const int64_t from = tile * p.width, left = p.m - from, count = left < p.width ? left : p.width;
    for (int r = 0; r < ROWS; ++r) {
        const T* own = p.x + (row + r < p.n ? row + r : p.n - 1) * p.d + from;
        std::memcpy(costs + r * p.width, own, count * sizeof(T));
        for (int64_t j = count; j < p.width; ++j) costs[r * p.width + j] = 0;
    }
}

// The costs of a group of rows with a tile of columns, (ROWS, width).
template <class T>
inline void any_costs(const Pairs<T>& p, int64_t row, int64_t tile, T* costs) {
    switch (p.form) {
        case Form::squared_differences: group_costs<T, Form::squared_differences>(p, row, tile, costs); break;
        case Form::squared_product: group_costs<T, Form::squared_product>(p, row, tile, costs); break;
        case Form::distance: group_costs<T, Form::distance>(p, row, tile, costs); break;
        case Form::matrix: matrix_costs(p, row, tile, costs); break;
    }
}

// Calls reduce(tile, row, rows, costs) for each group of rows and each tile; costs is (ROWS, width).
template <class T, class Reduce>
inline void sweep(const Pairs<T>& p, int64_t begin, int64_t end, T* costs, Reduce reduce) {
    const int64_t tiles = p.tiles();
    for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t row = begin; row < end; row += ROWS) {
            any_costs(p, row, tile, costs);
            reduce(tile, row, int(end - row < ROWS ? end - row : ROWS), costs);
        }
}

template <class T>
void costs(const Pairs<T>& p, int64_t begin, int64_t end, T* scratch, T* out) {
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* c) {
        const int64_t from = tile * p.width, left = p.m - from, count = left < p.width ? left : p.width;
        for (int r = 0; r < rows; ++r) std::memcpy(out + (row + r) * p.m + from, c + r * p.width, count * sizeof(T));
    });
}

template <class T>
inline Vector<T> score(const Vector<T> cost, const Vector<T> h, T scale) {
    return h - scale * cost;
}

// The state of a softmin's rows: the largest score so far, and the sum of 2^(score - largest).
template <class T>
struct Running {
    T* tops;
    double* sums;
};

// Takes one row's costs in, with the exact maximum of the tile; leaves the scores in z, which may be where costs were.
template <class T>
inline void add_tile(const T* costs, T* z, const T* h, T scale, int64_t width, T& top, double& total) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> top0 = fill(T(LOWEST)), top1 = top0;
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        const Vector<T> z0 = score(load(costs + j), load(h + j), scale);
        const Vector<T> z1 = score(load(costs + j + LANES), load(h + j + LANES), scale);
        store(z + j, z0), store(z + j + LANES, z1);
        top0 = larger(top0, z0), top1 = larger(top1, z1);
    }
    const T highest = largest<T>(larger(top0, top1));
    if (highest > top) {
        const T drop = top - highest;
        total = drop > Simd<T>::LEAST ? total * __builtin_exp2(double(drop)) : 0.0;
        top = highest;
    }
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        sum0 += exp2_relative<T>(load(z + j) - top);
        sum1 += exp2_relative<T>(load(z + j + LANES) - top);
    }
    total += double(sum<T>(sum0 + sum1));
}

// Takes a tile in for a group of rows in D dimensions without looking for its maximum: scores are measured from the
// largest of earlier tiles. Costs never leave the registers. False, and nothing is taken in, if a sum came out too
// large for that.
template <class T, int D>
inline bool add_tile_unseen(const Pairs<T>& p, const T* h, T scale, int64_t row, int rows, int64_t tile,
                            Running<T> running) {
    constexpr int LANES = Simd<T>::LANES;
    T x[ROWS][D], offsets[ROWS];  // a cost to begin with that takes the largest score off
    for (int r = 0; r < ROWS; ++r) {
        const int own = r < rows ? r : rows - 1;
        for (int k = 0; k < D; ++k) x[r][k] = p.x[(row + own) * D + k];
        offsets[r] = running.tops[own] / scale;
    }
    const T* y = p.y + tile * D * p.width;
    Vector<T> sums[ROWS] = {};
    for (int64_t j = 0; j < p.width; j += LANES) {
        Vector<T> columns[D];
        for (int k = 0; k < D; ++k) columns[k] = load(y + k * p.width + j);
        const Vector<T> sent = load(h + j);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            Vector<T> cost = fill(offsets[r]);
#pragma GCC unroll 8
            for (int k = 0; k < D; ++k) {
                const Vector<T> difference = x[r][k] - columns[k];
                cost += difference * difference;
            }
            sums[r] += exp2_guarded<T>(score(cost, sent, scale));
        }
    }
    T totals[ROWS];
    for (int r = 0; r < ROWS; ++r) {
        totals[r] = sum<T>(sums[r]);
        if (!(totals[r] < Simd<T>::HIGH)) return false;
    }
    for (int r = 0; r < rows; ++r) running.sums[r] += double(totals[r]);
    return true;
}

template <class T>
inline bool add_tile_unseen(const Pairs<T>& p, const T* h, T scale, int64_t row, int rows, int64_t tile,
                            Running<T> running) {
    if (tile == 0 || p.form != Form::squared_differences) return false;
    switch (p.d) {
        case 1: return add_tile_unseen<T, 1>(p, h, scale, row, rows, tile, running);
        case 2: return add_tile_unseen<T, 2>(p, h, scale, row, rows, tile, running);
        case 3: return add_tile_unseen<T, 3>(p, h, scale, row, rows, tile, running);
        case 4: return add_tile_unseen<T, 4>(p, h, scale, row, rows, tile, running);
        default: return false;
    }
}

template <class T>
void softmin(const Pairs<T>& p, const Scores<T>& s, int64_t begin, int64_t end, T* scratch, double* sums, T* out) {
    T* const tops = scratch;
    T* const costs = scratch + BLOCK;
    for (int64_t i = begin; i < end; ++i) tops[i - begin] = T(LOWEST), sums[i - begin] = 0;
    const int64_t tiles = p.tiles();
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const T* h = s.h + tile * p.width;
        for (int64_t row = begin; row < end; row += ROWS) {
            const int rows = int(end - row < ROWS ? end - row : ROWS);
            const Running<T> running{tops + row - begin, sums + row - begin};
            if (add_tile_unseen(p, h, s.scale, row, rows, tile, running)) continue;
            any_costs(p, row, tile, costs);
            for (int r = 0; r < rows; ++r) {
                T* const own = costs + r * p.width;
                add_tile(own, own, h, s.scale, p.width, running.tops[r], running.sums[r]);
            }
        }
    }
    for (int64_t i = begin; i < end; ++i)
        out[i] = T(-(double(tops[i - begin]) + __builtin_log2(sums[i - begin])) / double(s.scale));
}

// The plan's entries 2^(z_ij + u_i) of one row, over the costs they were made of or beside them.
template <class T>
inline void plan_row(const T* costs, const T* h, T u, T scale, int64_t width, T* plan) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES)
        store(plan + j, exp2_or_zero<T>(score(load(costs + j), load(h + j), scale) + u));
}

template <class T>
inline void divide_by_distance(const T* distances, int64_t width, T* plan) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES) {
        const Vector<T> distance = load(distances + j);
        const auto apart = distance > T(0);  // at coincident points the subgradient 0 is taken
        const Vector<T> quotient = load(plan + j) / (apart ? distance : fill(T(1)));
        store(plan + j, apart ? quotient : fill(T(0)));
    }
}

template <class T>
inline T dot(const T* a, const T* b, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        sum0 += load(a + j) * load(b + j);
        sum1 += load(a + j + LANES) * load(b + j + LANES);
    }
    return sum<T>(sum0 + sum1);
}

// sum_j w_j (x - b_j)
template <class T>
inline T dot_difference(const T* w, T x, const T* b, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) {
        sum0 += load(w + j) * (x - load(b + j));
        sum1 += load(w + j + LANES) * (x - load(b + j + LANES));
    }
    return sum<T>(sum0 + sum1);
}

template <class T>
inline T total(const T* a, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    Vector<T> sum0 = {}, sum1 = {};
    for (int64_t j = 0; j < width; j += 2 * LANES) sum0 += load(a + j), sum1 += load(a + j + LANES);
    return sum<T>(sum0 + sum1);
}

// Adds W V to sums (ROWS, k) for weights W (ROWS, width) and a wide V (width, stride): a small matrix product.
template <class T>
inline void add_wide_product(const T* w, int64_t width, const T* v, int64_t stride, int64_t count, int rows, int64_t k,
                             double* sums) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t l = 0; l < stride; l += VECTORS * LANES) {
        Vector<T> sum[ROWS][VECTORS] = {};
        for (int64_t j = 0; j < count; ++j) {
            Vector<T> values[VECTORS];
            for (int c = 0; c < VECTORS; ++c) values[c] = load(v + j * stride + l + c * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
                const Vector<T> weight = fill(w[r * width + j]);
#pragma GCC unroll 8
                for (int c = 0; c < VECTORS; ++c) sum[r][c] += weight * values[c];
            }
        }
        const int64_t wanted = k - l < VECTORS * LANES ? k - l : VECTORS * LANES;
        for (int r = 0; r < rows; ++r) {
            T partial[VECTORS * LANES];
            for (int c = 0; c < VECTORS; ++c) store(partial + c * LANES, sum[r][c]);
            double* const into = sums + r * k + l;
            for (int64_t e = 0; e < wanted; ++e) into[e] += double(partial[e]);
        }
    }
}

template <class T>
void product(const Pairs<T>& p, const Scores<T>& s, const Operand<T>& v, Product what, const T* points, int64_t begin,
             int64_t end, T* scratch, double* sums, T* out) {
    const int64_t k = v.k;
    T* costs = scratch;
    T* plan = scratch + ROWS * p.width;
    double* masses = sums + BLOCK * k;  // row sums of the weights, for the wide gradient
    const bool gradient = what != Product::plan;
    for (int64_t e = 0; e < BLOCK * (k + 1); ++e) sums[e] = 0;
    sweep(p, begin, end, costs, [&](int64_t tile, int64_t row, int rows, T* c) {
        for (int r = 0; r < ROWS; ++r) {
            const int own = r < rows ? r : rows - 1;
            T* weights = plan + r * p.width;
            plan_row(c + own * p.width, s.h + tile * p.width, s.u[row + own], s.scale, p.width, weights);
            if (what == Product::gradient_of_distance) divide_by_distance(c + own * p.width, p.width, weights);
        }
        if (v.stride == 0) {
            for (int r = 0; r < rows; ++r)
                for (int64_t l = 0; l < k; ++l) {
                    const T* values = v.values + (tile * k + l) * p.width;
                    sums[(row + r - begin) * k + l] +=
                        double(gradient ? dot_difference(plan + r * p.width, points[(row + r) * k + l], values, p.width)
                                        : dot(plan + r * p.width, values, p.width));
                }
        } else {
            const int64_t left = p.m - tile * p.width, count = left < p.width ? left : p.width;
            add_wide_product(plan, p.width, v.values + tile * p.width * v.stride, v.stride, count, rows, k,
                             sums + (row - begin) * k);
            if (gradient)
                for (int r = 0; r < rows; ++r) masses[row + r - begin] += double(total(plan + r * p.width, p.width));
        }
    });
    const double factor = what == Product::gradient_of_squares ? 2.0 : 1.0;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t l = 0; l < k; ++l) {
            double result = sums[(i - begin) * k + l];
            if (gradient && v.stride != 0) result = masses[i - begin] * double(points[i * k + l]) - result;
            out[i * k + l] = T(factor * result);
        }
}

template <class T>
void marginals(const Pairs<T>& p, const Scores<T>& s, int64_t begin, int64_t end, T* scratch, double* columns,
               T* out) {
    constexpr int LANES = Simd<T>::LANES;
    double rows_sums[BLOCK] = {};
    T* costs = scratch;
    T* across = scratch + ROWS * p.width;  // column sums of one group
    sweep(p, begin, end, costs, [&](int64_t tile, int64_t row, int rows, T* c) {
        const T* h = s.h + tile * p.width;
        for (int r = 0; r < rows; ++r, c += p.width) {
            const T u = s.u[row + r];
            Vector<T> sum0 = {};
            for (int64_t j = 0; j < p.width; j += LANES) {
                const Vector<T> entry = exp2_or_zero<T>(score(load(c + j), load(h + j), s.scale) + u);
                sum0 += entry;
                store(across + j, r == 0 ? entry : load(across + j) + entry);
            }
            rows_sums[row + r - begin] += double(sum<T>(sum0));
        }
        double* into = columns + tile * p.width;
        for (int64_t j = 0; j < p.width; ++j) into[j] += double(across[j]);
    });
    for (int64_t i = begin; i < end; ++i) out[i] = T(rows_sums[i - begin]);
}

template <class T>
void plan_cost(const Pairs<T>& p, const Scores<T>& s, int64_t begin, int64_t end, T* scratch, double* out) {
    for (int64_t i = begin; i < end; ++i) out[i] = 0;
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* c) {
        T* plan = scratch + ROWS * p.width;
        for (int r = 0; r < rows; ++r, c += p.width) {
            plan_row(c, s.h + tile * p.width, s.u[row + r], s.scale, p.width, plan);
            out[row + r] += double(dot(plan, c, p.width));
        }
    });
}

template <class T>
void corrected_primal(const Pairs<T>& p, const Scores<T>& s, const T* b, const T* up, const T* q, int64_t begin,
                      int64_t end, T* scratch, double* out) {
    constexpr int LANES = Simd<T>::LANES;
    const T unit = T(1) / s.scale;  // eps ln 2, with a logarithm in base 2
    const T tiny = sizeof(T) == 4 ? T(1e-37) : T(1e-300);
    for (int64_t i = begin; i < end; ++i) out[i] = 0;
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* c) {
        const int64_t from = tile * p.width;
        for (int r = 0; r < rows; ++r, c += p.width) {
            Vector<T> sum0 = {};
            for (int64_t j = 0; j < p.width; j += LANES) {
                const Vector<T> cost = load(c + j);
                const Vector<T> plain = exp2_or_zero<T>(score(cost, load(s.h + from + j), s.scale) + s.u[row + r]);
                const Vector<T> density = plain + up[row + r] * load(q + from + j);
                const Vector<T> logarithm = log2_positive<T>(larger(density, fill(tiny)));
                sum0 += load(b + from + j) * density * (cost + unit * logarithm);
            }
            out[row + r] += double(sum<T>(sum0));
        }
    });
}

}  // namespace sinkdiv::SINKDIV_ISA
