// What both solvers of small problems share: the stored costs, the two sides, the best iterate.
#pragma once

#include "reductions/plan_gradient.h"
#include "small/anderson.h"
#include "small/problem.h"
#include "small/stored_softmin.h"

namespace sinkdiv::SINKDIV_ISA {

template <class T>
int64_t small_memory(int64_t n, int64_t m, int64_t d, int64_t width) {
    const int64_t size_n = padded(n), size_m = padded(m),
                  largest_side = size_n > size_m ? size_n : size_m;
    const int64_t entries =
        n * size_m + 8 * (size_n + size_m) + 4 * largest_side + 2 * ROWS * width;
    const int64_t doubles = (2 * DEPTH + 6) * largest_side + BLOCK * (d + 1);
    const int64_t gradient = scratch_size<T>(width) + m + width;
    return (entries + gradient) * int64_t(sizeof(T)) + doubles * 8 + 64 * 64;
}

// What both solvers share: the stored costs, the two sides, the best iterate.
template <class T>
struct SmallSolve {
    const SmallProblem<T>& problem;
    Arena arena;
    Side<T> rows, columns;
    T *costs, *row_buffer;

    SmallSolve(const SmallProblem<T>& given, char* memory)
        : problem(given),
          arena(memory),
          rows(arena, given.a, given.tiles.n, given.rho_f),
          columns(arena, given.b, given.tiles.m, given.rho_g) {
        const int64_t n = rows.count, m = columns.count;
        *problem.error = T(__builtin_inf());  // until there is an iterate at the target
        std::memset(problem.f, 0, n * sizeof(T)), std::memset(problem.raw_f, 0, n * sizeof(T));
        std::memset(problem.g, 0, m * sizeof(T)), std::memset(problem.raw_g, 0, m * sizeof(T));
        costs = arena.zeros<T>(n * columns.size);
        row_buffer = arena.take<T>(rows.size > columns.size ? rows.size : columns.size);
        const CostTiles<T>& tiles = given.tiles;
        const Rows<T> range{0, n, arena.take<T>(2 * ROWS * tiles.width)};
        sweep(tiles, range, [&](int64_t tile, int64_t row, int count, T* c) {
            for (int r = 0; r < count; ++r)
                copy_row(tiles, tile, c + r * tiles.width, costs + (row + r) * columns.size);
        });
    }

    void softmin_of_columns(T scale) {
        columns.send(scale);
        softmin_along_rows(costs, columns.size, columns.exponents, scale, row_buffer, rows);
    }

    void softmin_of_rows(T scale) {
        rows.send(scale);
        softmin_along_columns(costs, rows.count, columns.size, rows.exponents, scale, columns);
    }

    static T scale_of(double eps) { return T(LOG2E / eps); }

    void keep_best(double error, double& best) {
        if (!(error <= best)) return;
        best = error;
        *problem.error = T(error);
        std::memcpy(problem.f, rows.potential, rows.count * sizeof(T));
        std::memcpy(problem.raw_f, rows.raw, rows.count * sizeof(T));
        if (problem.symmetric) return;
        std::memcpy(problem.g, columns.potential, columns.count * sizeof(T));
        std::memcpy(problem.raw_g, columns.raw, columns.count * sizeof(T));
    }

    // The gradient in the rows' points of the best iterate, from the stored costs.
    void differentiate() {
        if (!problem.gradient) return;
        const CostTiles<T>& tiles = problem.tiles;
        const T scale = scale_of(problem.eps);
        std::memcpy(rows.potential, problem.f, rows.count * sizeof(T));
        rows.send(scale);
        std::memcpy(columns.potential, problem.g, columns.count * sizeof(T));
        columns.send(scale);
        const int64_t all = tiles.count() * tiles.width;
        T* const h = arena.take<T>(all);
        for (int64_t j = 0; j < all; ++j)
            h[j] = j < columns.count ? columns.exponents[j] : T(LOWEST);
        CostTiles<T> stored = tiles;
        stored.x = costs, stored.d = columns.size, stored.form = Form::matrix;
        T* const scratch = arena.take<T>(scratch_size<T>(tiles.width));
        double* const sums = arena.take<double>(BLOCK * (tiles.d + 1));
        const PlanGradient<T> gradient{{rows.exponents, h, scale},   tiles.x, problem.operand,
                                       tiles.form == Form::distance, sums,    problem.gradient};
        for (int64_t begin = 0; begin < tiles.n; begin += BLOCK)
            pass(stored, gradient,
                 Rows<T>{begin, begin + BLOCK < tiles.n ? begin + BLOCK : tiles.n, scratch});
    }

    // What the dual gains from a potential (n), in double; see certificate.py.
    static double gain(const T* weights, const T* potential, int64_t count, double rho) {
        double total = 0;
        for (int64_t i = 0; i < count; ++i) {
            const double p = potential[i];
            total += weights[i] * (rho < __builtin_inf() ? -rho * __builtin_expm1(-p / rho) : p);
        }
        return total;
    }

    // The dual value of the best g and of its damped softmin.
    void report_value() {
        const double eps = problem.eps, rho = rows.rho, damping = rows.damping(eps);
        double attained = gain(columns.weights, problem.symmetric ? problem.f : problem.g,
                               columns.count, columns.rho);
        double plan_mass = rows.mass;
        if (rows.soft()) plan_mass = 0;
        for (int64_t i = 0; i < rows.count; ++i) {
            const double f = damping * double(problem.raw_f[i]), weight = rows.weights[i];
            if (!rows.soft()) {
                attained += weight * f;
            } else {
                attained -= weight * rho * __builtin_expm1(-f / rho);
                plan_mass += weight * __builtin_exp(-f / rho);
            }
        }
        *problem.value = T(attained - eps * (plan_mass - rows.mass * columns.mass));
    }
};

}  // namespace sinkdiv::SINKDIV_ISA
