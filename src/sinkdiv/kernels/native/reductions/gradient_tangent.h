// The derivative of `PlanGradient` as scores and points move.
#pragma once

#include "reductions/reduction.h"

namespace sinkdiv {

// The derivative of sum_j P_ij dC_ij/dx_i as u, h, x and y move along s, t, dx and dy
template <class T>
struct GradientTangent {
    Scores<T> scores;
    Factors<T> factors;  // s and t
    T slope;             // -1 / eps, by which the cost's tangent changes an exponent
    Motion<T> motion;
    const T* points;  // the rows' points (n, d)
    Operand<T> v;     // the columns' points
    Operand<T> dv;    // their velocities
    double* sums;     // 2 BLOCK (d + 1) numbers that belong to the thread
    T* out;           // (n, d)
};

#if defined(SINKDIV_ISA)

namespace SINKDIV_ISA {

// The weights of the difference of a pair's points and of that of their velocities in the tangent
// of a gradient.
template <class T>
struct TangentWeights {
    Vector<T> place, move;
};

// For the plan's entry P and factor = s + t + k C' these are P factor and P. For a distance C they
// are P (factor - C'/C) / C and P / C: of the velocities only the part across the line of two
// points turns it.
template <class T, bool DISTANCE>
inline TangentWeights<T> tangent_weights(Vector<T> cost, Vector<T> tangent, Vector<T> entry,
                                         Vector<T> factor) {
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
inline void tangent_row(T* costs, T* tangents, const T* h, T u, T scale, T s, const T* t, T k,
                        int64_t width) {
    constexpr int LANES = Simd<T>::LANES;
    for (int64_t j = 0; j < width; j += LANES) {
        const Vector<T> cost = load(costs + j), tangent = load(tangents + j);
        const Vector<T> entry =
            exp2_or_zero<T>(score(cost, load(h + j), scale) + u, LEAST_FACTOR<T>);
        const auto weights =
            tangent_weights<T, DISTANCE>(cost, tangent, entry, s + load(t + j) + k * tangent);
        store(costs + j, weights.move), store(tangents + j, weights.place);
    }
}

template <class T, class Low>
inline void low_gradient_tangent(const Low& low, const GradientTangent<T>& given,
                                 const Rows<T>& range) {
    const Scores<T>& s = given.scores;
    const Factors<T>& f = given.factors;
    const int64_t begin = range.begin, end = range.end;
    double* const sums = given.sums;
    constexpr int D = Low::DIMENSION, COUNT = ROWS / 2;  // whose sums leave registers for all else
    const int64_t count = low.tiles.count(), width = low.tiles.width;
    for (int64_t e = 0; e < BLOCK * D; ++e) sums[e] = 0;
    for (int64_t tile = 0; tile < count; ++tile)
        for (int64_t row = begin; row < end; row += COUNT) {
            const int rows = int(end - row < COUNT ? end - row : COUNT);
            const T *h = s.h + tile * width, *columns = f.columns + tile * width;
            T u[COUNT], own[COUNT];
            for (int r = 0; r < COUNT; ++r) {
                u[r] = s.u[row + (r < rows ? r : 0)];
                own[r] = f.rows[row + (r < rows ? r : 0)];
            }
            Vector<T> total[COUNT][D] = {};
            low.template each<COUNT>(
                row, tile,
                [&](int r, int64_t j, const Vector<T>* differences, const Vector<T>* velocities,
                    Vector<T> cost, Vector<T> tangent) {
                    const Vector<T> z = score(cost, load(h + j), s.scale) + u[r];
                    const Vector<T> factor = own[r] + load(columns + j) + given.slope * tangent;
                    const auto weights = tangent_weights<T, Low::DISTANCE>(
                        cost, tangent, exp2_or_zero<T>(z, LEAST_FACTOR<T>), factor);
#pragma GCC unroll 8
                    for (int k = 0; k < D; ++k)
                        total[r][k] +=
                            weights.place * differences[k] + weights.move * velocities[k];
                });
            for (int r = 0; r < rows; ++r)
                for (int k = 0; k < D; ++k)
                    sums[(row + r - begin) * D + k] += double(sum<T>(total[r][k]));
        }
    const double factor = Low::DISTANCE ? 1.0 : 2.0;
    for (int64_t i = begin; i < end; ++i)
        for (int k = 0; k < D; ++k) given.out[i * D + k] = T(factor * sums[(i - begin) * D + k]);
}

template <class T>
void pass(const CostTiles<T>& tiles, const GradientTangent<T>& given, const Rows<T>& range) {
    if (in_low_dimension(tiles, given.motion,
                         [&](const auto& low) { low_gradient_tangent(low, given, range); }))
        return;
    const Scores<T>& s = given.scores;
    const Factors<T>& f = given.factors;
    const bool distance = tiles.form == Form::distance;
    BlockSums<T> places(given.v, given.points, range, given.sums);
    BlockSums<T> moves(given.dv, given.motion.x, range, given.sums + BLOCK * (given.v.k + 1));
    sweep_tangents(
        tiles, given.motion, range,
        [&](int64_t tile, int64_t row, int rows, T* costs, T* tangents) {
            const int64_t from = tile * tiles.width;
            for (int r = 0; r < ROWS; ++r) {
                const int64_t own = row + (r < rows ? r : rows - 1), at = r * tiles.width;
                const auto weigh = distance ? tangent_row<T, true> : tangent_row<T, false>;
                weigh(costs + at, tangents + at, s.h + from, s.u[own], s.scale, f.rows[own],
                      f.columns + from, given.slope, tiles.width);
            }
            places.add(tiles, tile, row, rows, tangents);
            moves.add(tiles, tile, row, rows, costs);
        });
    const double factor = distance ? 1.0 : 2.0;
    const int64_t d = given.v.k;
    for (int64_t i = range.begin; i < range.end; ++i)
        for (int64_t l = 0; l < d; ++l)
            given.out[i * d + l] = T(factor * (places.result(i, l) + moves.result(i, l)));
}

}  // namespace SINKDIV_ISA

#else

template <class T>
void gradient_tangent(const Batch& batch, Address u, Address h, Address eps, Address s, Address t,
                      Address dx, Address dy, Address out) {
    const Call<T> call(batch, eps);
    const PlanScores<T> scores(call, u, h);
    const PlanFactors<T> factors(call, s, t);
    const auto motion = call.motion(dx, dy);
    const auto points = call.operand(batch.y, batch.d), moves = call.operand(dy, batch.d);
    const auto sums = call.sums(2 * (batch.d + 1));
    call.run([&](int64_t b, int thread) {
        const T slope = T(-1 / double(entries<const T>(eps)[b]));
        const bool rest = motion[b].moving == Moving::rows;
        return GradientTangent<T>{scores[b],
                                  factors[b],
                                  slope,
                                  motion[b],
                                  call.packed().x(b),
                                  points[b],
                                  rest ? Operand<T>{nullptr, batch.d, 1} : moves[b],
                                  sums[thread],
                                  entries<T>(out, b * batch.n * batch.d)};
    });
}

#endif

}  // namespace sinkdiv

SINKDIV_REDUCTION(gradient_tangent, GradientTangent)
