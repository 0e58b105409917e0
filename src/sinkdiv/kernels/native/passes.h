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

// Vectors of a row whose costs and tangents are summed together, in as many registers as costs alone.
constexpr int BOTH = VECTORS / 2;

// Adds the contributions of coordinates [from, to) to the sums behind costs and tangents.
template <class T, Form FORM, Moving MOVING>
inline void add_tangent_coordinates(const T* x, const T* dx, const int64_t (&offsets)[ROWS], const T* y, const T* dy,
                                    int64_t width, int64_t from, int64_t to, Vector<T> (&cost)[ROWS][BOTH],
                                    Vector<T> (&tangent)[ROWS][BOTH]) {
    constexpr int LANES = Simd<T>::LANES;
    x += from, dx += from;  // two moving addresses and fixed offsets: an address for each row fills the registers
    for (int64_t k = from; k < to; ++k, ++x, ++dx) {
        Vector<T> columns[BOTH], moves[BOTH];
        for (int c = 0; c < BOTH; ++c) {
            columns[c] = load(y + k * width + c * LANES);
            moves[c] = load(dy + k * width + c * LANES);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const Vector<T> own = fill(x[offsets[r]]), move = fill(dx[offsets[r]]);
#pragma GCC unroll 8
            for (int c = 0; c < BOTH; ++c) {
                if constexpr (FORM == Form::squared_product) {
                    cost[r][c] += own * columns[c];
                    if constexpr (MOVING != Moving::rows) tangent[r][c] += own * moves[c];
                    if constexpr (MOVING != Moving::columns) tangent[r][c] += move * columns[c];
                } else {
                    const Vector<T> difference = own - columns[c];
                    cost[r][c] += difference * difference;
                    if constexpr (MOVING == Moving::both) tangent[r][c] += difference * (move - moves[c]);
                    if constexpr (MOVING == Moving::rows) tangent[r][c] += difference * move;
                    if constexpr (MOVING == Moving::columns) tangent[r][c] -= difference * moves[c];
                }
            }
        }
    }
}

// Costs and tangents of one row with a vector of columns, from their sums over the coordinates.
template <class T, Form FORM>
inline void finish_tangents(const Pairs<T>& p, const Motion<T>& motion, int64_t row, int64_t column, Vector<T>& cost,
                            Vector<T>& tangent) {
    if constexpr (FORM == Form::distance) {
        cost = root(cost);
        tangent /= cost > T(0) ? cost : fill(T(1));  // at coincident points it is 0
    } else if constexpr (FORM == Form::squared_product) {
        cost = larger(p.x_squares[row] + load(p.y_squares + column) - T(2) * cost, fill(T(0)));
        tangent = T(2) * (motion.x_products[row] + load(motion.y_products + column) - tangent);
    } else {
        tangent *= T(2);
    }
}

template <class T, Form FORM, Moving MOVING>
inline void group_tangents(const Pairs<T>& p, const Motion<T>& motion, int64_t row, int64_t tile, T* costs,
                           T* tangents) {
    constexpr int LANES = Simd<T>::LANES;
    int64_t offsets[ROWS];
    for (int r = 0; r < ROWS; ++r) offsets[r] = (row + r < p.n ? row + r : p.n - 1) * p.d;
    const int64_t at = tile * p.d * p.width;
    for (int64_t j = 0; j < p.width; j += BOTH * LANES)
        for (int64_t from = 0; from < p.d; from += RUN_OF_COORDINATES) {
            const int64_t to = from + RUN_OF_COORDINATES < p.d ? from + RUN_OF_COORDINATES : p.d;
            Vector<T> cost[ROWS][BOTH] = {}, tangent[ROWS][BOTH] = {};
            add_tangent_coordinates<T, FORM, MOVING>(p.x, motion.x, offsets, p.y + at + j, motion.y + at + j, p.width,
                                                     from, to, cost, tangent);
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < BOTH; ++c) {
                    const int64_t entry = r * p.width + j + c * LANES, own = row + r < p.n ? row + r : p.n - 1;
                    if (from > 0) cost[r][c] += load(costs + entry), tangent[r][c] += load(tangents + entry);
                    if (to == p.d)
                        finish_tangents<T, FORM>(p, motion, own, tile * p.width + j + c * LANES, cost[r][c],
                                                 tangent[r][c]);
                    store(costs + entry, cost[r][c]), store(tangents + entry, tangent[r][c]);
                }
        }
}

// The costs and tangents of a group of rows with a tile of columns, (ROWS, width) each.
template <class T, Form FORM>
inline void moving_tangents(const Pairs<T>& p, const Motion<T>& motion, int64_t row, int64_t tile, T* costs,
                            T* tangents) {
    switch (motion.moving) {
        case Moving::both: group_tangents<T, FORM, Moving::both>(p, motion, row, tile, costs, tangents); break;
        case Moving::rows: group_tangents<T, FORM, Moving::rows>(p, motion, row, tile, costs, tangents); break;
        case Moving::columns: group_tangents<T, FORM, Moving::columns>(p, motion, row, tile, costs, tangents); break;
    }
}

// Calls reduce(tile, row, rows, costs, tangents) for each group of rows and each tile; both are (ROWS, width). Pairs of
// points only.
template <class T, class Reduce>
inline void sweep_tangents(const Pairs<T>& p, const Motion<T>& motion, int64_t begin, int64_t end, T* scratch,
                           Reduce reduce) {
    const int64_t tiles = p.tiles();
    T *costs = scratch, *tangents = scratch + ROWS * p.width;
    for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t row = begin; row < end; row += ROWS) {
            if (p.form == Form::squared_differences)
                moving_tangents<T, Form::squared_differences>(p, motion, row, tile, costs, tangents);
            else if (p.form == Form::squared_product)
                moving_tangents<T, Form::squared_product>(p, motion, row, tile, costs, tangents);
            else
                moving_tangents<T, Form::distance>(p, motion, row, tile, costs, tangents);
            reduce(tile, row, int(end - row < ROWS ? end - row : ROWS), costs, tangents);
        }
}

// Pairs in D dimensions, whose costs and tangents never leave the registers.
template <class T, Form FORM, int D>
struct LowPairs {
    static constexpr int DIMENSION = D;
    static constexpr bool DISTANCE = FORM == Form::distance;
    const Pairs<T>& p;
    const Motion<T>& motion;

    // Calls take(r, j, differences, velocities, cost, tangent) for COUNT rows from `row` on and each vector of a tile.
    // Beyond the last row the last one is given again.
    template <int COUNT, class Take>
    void each(int64_t row, int64_t tile, Take take) const {
        T x[COUNT][D], dx[COUNT][D];
        for (int r = 0; r < COUNT; ++r)
            for (int k = 0; k < D; ++k) {
                const int64_t at = (row + r < p.n ? row + r : p.n - 1) * D + k;
                x[r][k] = p.x[at], dx[r][k] = motion.x[at];
            }
        const T *y = p.y + tile * D * p.width, *dy = motion.y + tile * D * p.width;
        for (int64_t j = 0; j < p.width; j += Simd<T>::LANES) {
            Vector<T> columns[D], moves[D];
            for (int k = 0; k < D; ++k) columns[k] = load(y + k * p.width + j), moves[k] = load(dy + k * p.width + j);
#pragma GCC unroll 8
            for (int r = 0; r < COUNT; ++r) {
                Vector<T> differences[D], velocities[D], cost = {}, tangent = {};
#pragma GCC unroll 8
                for (int k = 0; k < D; ++k) {
                    differences[k] = x[r][k] - columns[k], velocities[k] = dx[r][k] - moves[k];
                    cost += differences[k] * differences[k];
                    tangent += differences[k] * velocities[k];
                }
                finish_tangents<T, FORM>(p, motion, 0, 0, cost, tangent);
                take(r, j, differences, velocities, cost, tangent);
            }
        }
    }
};

// Calls pass(low) with the pairs as `LowPairs` of their form and dimension; false if they are not of low dimension.
template <class T, class Pass>
inline bool in_low_dimension(const Pairs<T>& p, const Motion<T>& motion, Pass pass) {
    const auto in = [&](auto distances, auto squares) { p.form == Form::distance ? pass(distances) : pass(squares); };
    constexpr Form DISTANCE = Form::distance, SQUARES = Form::squared_differences;
    switch (p.d) {
        case 1: return in(LowPairs<T, DISTANCE, 1>{p, motion}, LowPairs<T, SQUARES, 1>{p, motion}), true;
        case 2: return in(LowPairs<T, DISTANCE, 2>{p, motion}, LowPairs<T, SQUARES, 2>{p, motion}), true;
        case 3: return in(LowPairs<T, DISTANCE, 3>{p, motion}, LowPairs<T, SQUARES, 3>{p, motion}), true;
        case 4: return in(LowPairs<T, DISTANCE, 4>{p, motion}, LowPairs<T, SQUARES, 4>{p, motion}), true;
        default: return false;
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

template <class T>
void ctransform(const Pairs<T>& p, const T* g, int64_t begin, int64_t end, T* scratch, T* out) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t i = begin; i < end; ++i) out[i] = T(__builtin_inf());
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* c) {
        const T* sent = g + tile * p.width;
        for (int r = 0; r < rows; ++r, c += p.width) {
            Vector<T> top0 = fill(T(-__builtin_inf())), top1 = top0;
            for (int64_t j = 0; j < p.width; j += 2 * LANES) {
                top0 = larger(top0, load(sent + j) - load(c + j));
                top1 = larger(top1, load(sent + j + LANES) - load(c + j + LANES));
            }
            const T least = -largest<T>(larger(top0, top1));
            if (least < out[row + r]) out[row + r] = least;
        }
    });
}

// The plan's entries 2^(z_ij + u_i) of one row, over the costs they were made of or beside them.
template <class T>
inline void plan_row(const T* costs, const T* h, T u, T scale, int64_t width, T* plan, T least = Simd<T>::LEAST) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES)
        store(plan + j, exp2_or_zero<T>(score(load(costs + j), load(h + j), scale) + u, least));
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

// Sums over the tiles of W V, or of sum_j w_ij (x_i - v_j) where `points` holds the x_i (n, k), for a block of rows.
template <class T>
struct BlockSums {
    const Operand<T>& v;
    const T* points;
    int64_t begin;
    double* sums;  // (BLOCK, k), then the row sums of the weights, for wide differences

    void clear() {
        for (int64_t e = 0; e < BLOCK * (v.k + 1); ++e) sums[e] = 0;
    }

    // Takes the weights (ROWS, width) of a group of rows with a tile.
    void add(const Pairs<T>& p, int64_t tile, int64_t row, int rows, const T* weights) {
        if (v.stride == 0) {
            for (int r = 0; r < rows; ++r, weights += p.width)
                for (int64_t l = 0; l < v.k; ++l) {
                    const T* values = v.values + (tile * v.k + l) * p.width;
                    sums[(row + r - begin) * v.k + l] +=
                        double(points ? dot_difference(weights, points[(row + r) * v.k + l], values, p.width)
                                      : dot(weights, values, p.width));
                }
        } else {
            const int64_t left = p.m - tile * p.width, count = left < p.width ? left : p.width;
            if (v.values)
                add_wide_product(weights, p.width, v.values + tile * p.width * v.stride, v.stride, count, rows, v.k,
                                 sums + (row - begin) * v.k);
            double* const masses = sums + BLOCK * v.k + row - begin;
            if (points)
                for (int r = 0; r < rows; ++r) masses[r] += double(total(weights + r * p.width, p.width));
        }
    }

    double result(int64_t i, int64_t l) const {
        const double sum = sums[(i - begin) * v.k + l];
        return points && v.stride ? sums[BLOCK * v.k + i - begin] * double(points[i * v.k + l]) - sum : sum;
    }
};

template <class T>
void product(const Pairs<T>& p, const Scores<T>& s, const Operand<T>& v, Product what, const T* points, int64_t begin,
             int64_t end, T* scratch, double* sums, T* out) {
    T* plan = scratch + ROWS * p.width;
    const T least = what == Product::plan ? Simd<T>::LEAST : LEAST_FACTOR<T>;
    BlockSums<T> block{v, what == Product::plan ? nullptr : points, begin, sums};
    block.clear();
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs) {
        for (int r = 0; r < ROWS; ++r) {
            const int own = r < rows ? r : rows - 1;
            T* weights = plan + r * p.width;
            plan_row(costs + own * p.width, s.h + tile * p.width, s.u[row + own], s.scale, p.width, weights, least);
            if (what == Product::gradient_of_distance) divide_by_distance(costs + own * p.width, p.width, weights);
        }
        block.add(p, tile, row, rows, plan);
    });
    const double factor = what == Product::gradient_of_squares ? 2.0 : 1.0;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t l = 0; l < v.k; ++l) out[i * v.k + l] = T(factor * block.result(i, l));
}

template <class T>
void cost_product(const Pairs<T>& p, const Scores<T>& s, const Operand<T>& v, int64_t begin, int64_t end, T* scratch,
                  double* sums, T* out) {
    constexpr int LANES = Simd<T>::LANES;
    T* plan = scratch + ROWS * p.width;
    BlockSums<T> block{v, nullptr, begin, sums};
    block.clear();
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs) {
        for (int r = 0; r < ROWS; ++r) {
            const int own = r < rows ? r : rows - 1;
            const T* c = costs + own * p.width;
            T* weights = plan + r * p.width;
            plan_row(c, s.h + tile * p.width, s.u[row + own], s.scale, p.width, weights, LEAST_FACTOR<T>);
            for (int64_t j = 0; j < p.width; j += LANES) store(weights + j, load(weights + j) * load(c + j));
        }
        block.add(p, tile, row, rows, plan);
    });
    for (int64_t i = begin; i < end; ++i)
        for (int64_t l = 0; l < v.k; ++l) out[i * v.k + l] = T(block.result(i, l));
}

// An entry of the plan from its exponent z, times the sum of factors and its own logarithm; 0 where the entry is.
template <class T>
inline Vector<T> weighted_entry(const Vector<T> z, const Vector<T> factors) {
    const Vector<T> entry = exp2_or_zero<T>(z, LEAST_FACTOR<T>);
    return entry * (factors + T(LN2) * larger(z, fill(Simd<T>::LEAST)));
}

// The plan's entries of one row, times s + t_j + log P_j.
template <class T>
inline void weighted_row(const T* costs, const T* h, T u, T scale, T s, const T* t, int64_t width, T* weights) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES)
        store(weights + j, weighted_entry<T>(score(load(costs + j), load(h + j), scale) + u, s + load(t + j)));
}

template <class T>
void weighted_plan(const Pairs<T>& p, const Scores<T>& s, const Factors<T>& f, int64_t begin, int64_t end, T* scratch,
                   T* out) {
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* c) {
        const int64_t from = tile * p.width, left = p.m - from, count = left < p.width ? left : p.width;
        for (int r = 0; r < rows; ++r, c += p.width) {
            weighted_row(c, s.h + from, s.u[row + r], s.scale, f.rows[row + r], f.columns + from, p.width, c);
            std::memcpy(out + (row + r) * p.m + from, c, count * sizeof(T));
        }
    });
}

template <class T>
void weighted_gradient(const Pairs<T>& p, const Scores<T>& s, const Operand<T>& v, const Factors<T>& f, const T* points,
                       int64_t begin, int64_t end, T* scratch, double* sums, T* out) {
    T* weights = scratch + ROWS * p.width;
    BlockSums<T> block{v, points, begin, sums};
    block.clear();
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs) {
        const int64_t from = tile * p.width;
        for (int r = 0; r < ROWS; ++r) {
            const int64_t own = row + (r < rows ? r : rows - 1), at = r * p.width;
            weighted_row(costs + at, s.h + from, s.u[own], s.scale, f.rows[own], f.columns + from, p.width,
                         weights + at);
            if (p.form == Form::distance) divide_by_distance(costs + at, p.width, weights + at);
        }
        block.add(p, tile, row, rows, weights);
    });
    const double factor = p.form == Form::distance ? 1.0 : 2.0;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t l = 0; l < v.k; ++l) out[i * v.k + l] = T(factor * block.result(i, l));
}

// The weights of the difference of a pair's points and of that of their velocities in the tangent of a gradient.
template <class T>
struct TangentWeights {
    Vector<T> place, move;
};

// For the plan's entry P and factor = s + t + k C' these are P factor and P. For a distance C they are
// P (factor - C'/C) / C and P / C: of the velocities only the part across the line of two points turns it.
template <class T, bool DISTANCE>
inline TangentWeights<T> tangent_weights(Vector<T> cost, Vector<T> tangent, Vector<T> entry, Vector<T> factor) {
    if constexpr (DISTANCE) {
        const auto apart = cost > T(0);
        const Vector<T> inverse = T(1) / (apart ? cost : fill(T(1)));
        entry = apart ? entry * inverse : fill(T(0));
        factor -= tangent * inverse;
    }
    return {entry * factor, entry};
}

// The weights of one row, of places over the tangents and of moves over the costs.
template <class T, bool DISTANCE>
inline void tangent_row(T* costs, T* tangents, const T* h, T u, T scale, T s, const T* t, T k, int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES) {
        const Vector<T> cost = load(costs + j), tangent = load(tangents + j);
        const Vector<T> entry = exp2_or_zero<T>(score(cost, load(h + j), scale) + u, LEAST_FACTOR<T>);
        const auto weights = tangent_weights<T, DISTANCE>(cost, tangent, entry, s + load(t + j) + k * tangent);
        store(costs + j, weights.move), store(tangents + j, weights.place);
    }
}

template <class T, class Low>
inline void low_gradient_tangent(const Low& low, const Scores<T>& s, const Factors<T>& f, int64_t begin, int64_t end,
                                 double* sums, T* out) {
    constexpr int D = Low::DIMENSION, COUNT = ROWS / 2;  // whose sums leave registers for all else
    const int64_t tiles = low.p.tiles(), width = low.p.width;
    for (int64_t e = 0; e < BLOCK * D; ++e) sums[e] = 0;
    for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t row = begin; row < end; row += COUNT) {
            const int rows = int(end - row < COUNT ? end - row : COUNT);
            const T *h = s.h + tile * width, *columns = f.columns + tile * width;
            T u[COUNT], own[COUNT];
            for (int r = 0; r < COUNT; ++r) {
                u[r] = s.u[row + (r < rows ? r : 0)];
                own[r] = f.rows[row + (r < rows ? r : 0)];
            }
            Vector<T> total[COUNT][D] = {};
            low.template each<COUNT>(row, tile, [&](int r, int64_t j, const Vector<T>* differences,
                                                    const Vector<T>* velocities, Vector<T> cost, Vector<T> tangent) {
                const Vector<T> z = score(cost, load(h + j), s.scale) + u[r];
                const Vector<T> factor = own[r] + load(columns + j) + f.slope * tangent;
                const auto weights = tangent_weights<T, Low::DISTANCE>(
                    cost, tangent, exp2_or_zero<T>(z, LEAST_FACTOR<T>), factor);
#pragma GCC unroll 8
                for (int k = 0; k < D; ++k)
                    total[r][k] += weights.place * differences[k] + weights.move * velocities[k];
            });
            for (int r = 0; r < rows; ++r)
                for (int k = 0; k < D; ++k) sums[(row + r - begin) * D + k] += double(sum<T>(total[r][k]));
        }
    const double factor = Low::DISTANCE ? 1.0 : 2.0;
    for (int64_t i = begin; i < end; ++i)
        for (int k = 0; k < D; ++k) out[i * D + k] = T(factor * sums[(i - begin) * D + k]);
}

template <class T>
void gradient_tangent(const Pairs<T>& p, const Scores<T>& s, const Operand<T>& v, const Operand<T>& dv,
                      const Factors<T>& f, const Motion<T>& motion, const T* points, int64_t begin, int64_t end,
                      T* scratch, double* sums, T* out) {
    if (in_low_dimension(p, motion, [&](const auto& low) { low_gradient_tangent(low, s, f, begin, end, sums, out); }))
        return;
    const bool distance = p.form == Form::distance;
    BlockSums<T> places{v, points, begin, sums}, moves{dv, motion.x, begin, sums + BLOCK * (v.k + 1)};
    places.clear(), moves.clear();
    sweep_tangents(p, motion, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs, T* tangents) {
        const int64_t from = tile * p.width;
        for (int r = 0; r < ROWS; ++r) {
            const int64_t own = row + (r < rows ? r : rows - 1), at = r * p.width;
            const auto weigh = distance ? tangent_row<T, true> : tangent_row<T, false>;
            weigh(costs + at, tangents + at, s.h + from, s.u[own], s.scale, f.rows[own], f.columns + from, f.slope,
                  p.width);
        }
        places.add(p, tile, row, rows, tangents);
        moves.add(p, tile, row, rows, costs);
    });
    const double factor = distance ? 1.0 : 2.0;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t l = 0; l < v.k; ++l) out[i * v.k + l] = T(factor * (places.result(i, l) + moves.result(i, l)));
}

// Row and column sums of what becomes of the plan's entries, for a block of rows.
template <class T>
struct BothSums {
    const Pairs<T>& p;
    const Scores<T>& s;
    int64_t begin;
    T* across;  // (width): column sums of one group
    double* columns;
    double rows_sums[BLOCK];

    // Takes a group of rows with a tile; term(z, r, j) is that of an entry with the exponent z, in row r and column j of
    // the tile.
    template <class Term>
    void add(int64_t tile, int64_t row, int rows, const T* costs, Term term_of) {
        constexpr int LANES = Simd<T>::LANES;
        const T* h = s.h + tile * p.width;
        for (int r = 0; r < rows; ++r) {
            const T u = s.u[row + r];
            Vector<T> sum0 = {};
            for (int64_t j = 0; j < p.width; j += LANES) {
                const Vector<T> term = term_of(score(load(costs + r * p.width + j), load(h + j), s.scale) + u, r, j);
                sum0 += term;
                store(across + j, r == 0 ? term : load(across + j) + term);
            }
            rows_sums[row + r - begin] += double(sum<T>(sum0));
        }
        double* into = columns + tile * p.width;
        for (int64_t j = 0; j < p.width; ++j) into[j] += double(across[j]);
    }

    void write(int64_t end, T* out) const {
        for (int64_t i = begin; i < end; ++i) out[i] = T(rows_sums[i - begin]);
    }
};

template <class T>
void marginals(const Pairs<T>& p, const Scores<T>& s, int64_t begin, int64_t end, T* scratch, double* columns,
               T* out) {
    BothSums<T> both{p, s, begin, scratch + ROWS * p.width, columns, {}};
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs) {
        both.add(tile, row, rows, costs, [](Vector<T> z, int, int64_t) { return exp2_or_zero<T>(z); });
    });
    both.write(end, out);
}

template <class T>
void weighted_marginals(const Pairs<T>& p, const Scores<T>& s, const Factors<T>& f, int64_t begin, int64_t end,
                        T* scratch, double* columns, T* out) {
    BothSums<T> both{p, s, begin, scratch + ROWS * p.width, columns, {}};
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs) {
        const T *own = f.rows + row, *theirs = f.columns + tile * p.width;
        both.add(tile, row, rows, costs,
                 [&](Vector<T> z, int r, int64_t j) { return weighted_entry<T>(z, own[r] + load(theirs + j)); });
    });
    both.write(end, out);
}

template <class T, class Low>
inline void low_tangent_marginals(const Low& low, const Scores<T>& s, int64_t begin, int64_t end, T* across,
                                  double* columns, T* out) {
    const int64_t tiles = low.p.tiles(), width = low.p.width;
    double rows_sums[BLOCK] = {};
    for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t row = begin; row < end; row += ROWS) {
            const int rows = int(end - row < ROWS ? end - row : ROWS);
            const T* h = s.h + tile * width;
            T u[ROWS];
            for (int r = 0; r < ROWS; ++r) u[r] = r < rows ? s.u[row + r] : T(LOWEST);
            Vector<T> total[ROWS] = {}, column = {};
            low.template each<ROWS>(row, tile, [&](int r, int64_t j, const Vector<T>*, const Vector<T>*,
                                                   Vector<T> cost, Vector<T> tangent) {
                const Vector<T> z = score(cost, load(h + j), s.scale) + u[r];
                const Vector<T> term = exp2_or_zero<T>(z, LEAST_FACTOR<T>) * tangent;
                total[r] += term;
                column = r == 0 ? term : column + term;
                if (r == ROWS - 1) store(across + j, column);
            });
            for (int r = 0; r < rows; ++r) rows_sums[row + r - begin] += double(sum<T>(total[r]));
            double* const into = columns + tile * width;
            for (int64_t j = 0; j < width; ++j) into[j] += double(across[j]);
        }
    for (int64_t i = begin; i < end; ++i) out[i] = T(rows_sums[i - begin]);
}

template <class T>
void tangent_marginals(const Pairs<T>& p, const Scores<T>& s, const Motion<T>& motion, int64_t begin, int64_t end,
                       T* scratch, double* columns, T* out) {
    const auto in_registers = [&](const auto& low) {
        low_tangent_marginals(low, s, begin, end, scratch, columns, out);
    };
    if (in_low_dimension(p, motion, in_registers)) return;
    BothSums<T> both{p, s, begin, scratch + 2 * ROWS * p.width, columns, {}};
    sweep_tangents(p, motion, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* costs, T* tangents) {
        both.add(tile, row, rows, costs, [&](Vector<T> z, int r, int64_t j) {
            return exp2_or_zero<T>(z, LEAST_FACTOR<T>) * load(tangents + r * p.width + j);
        });
    });
    both.write(end, out);
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
void plan_matrix(const Pairs<T>& p, const Scores<T>& s, int64_t begin, int64_t end, T* scratch, T* out) {
    sweep(p, begin, end, scratch, [&](int64_t tile, int64_t row, int rows, T* c) {
        const int64_t from = tile * p.width, left = p.m - from, count = left < p.width ? left : p.width;
        for (int r = 0; r < rows; ++r, c += p.width) {
            plan_row(c, s.h + from, s.u[row + r], s.scale, p.width, c);
            std::memcpy(out + (row + r) * p.m + from, c, count * sizeof(T));
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
