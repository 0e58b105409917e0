// Vectors of the widest kind that this translation unit may use, and the exponential and the
// logarithm of them.
//
// Everything here lives in the namespace of one instruction set and uses no inline function of the
// standard library: the linker may keep any one of several copies of such a function, and must not
// keep one that a processor cannot run.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sinkdiv::SINKDIV_ISA {

#if defined(__AVX512F__)
// 24 accumulators, 4 columns and a broadcast fill 32 registers.
constexpr int BYTES = 64, ROWS = 6, VECTORS = 4;
#elif defined(__AVX2__)
constexpr int BYTES = 32, ROWS = 4, VECTORS = 2;
#else
constexpr int BYTES = 16, ROWS = 4, VECTORS = 2;
#endif

typedef float FloatVector __attribute__((vector_size(BYTES)));
typedef double DoubleVector __attribute__((vector_size(BYTES)));
typedef int32_t IntVector __attribute__((vector_size(BYTES)));
typedef int64_t LongVector __attribute__((vector_size(BYTES)));

// ROUND: adding it rounds to the nearest integer. Between LEAST and MOST exp2 is a normal number;
// of less than LEAST it is not wanted. HIGH: a sum below it has not overflowed.
template <class T>
struct Simd;

template <>
struct Simd<float> {
    using Vector = FloatVector;
    using Bits = IntVector;
    static constexpr int LANES = BYTES / 4, MANTISSA = 23, BIAS = 127;
    static constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23
    static constexpr float LEAST = -125.0f, MOST = 127.0f;
    static constexpr float HIGH = 18446744073709551616.0f;  // 2^64
};

template <>
struct Simd<double> {
    using Vector = DoubleVector;
    using Bits = LongVector;
    static constexpr int LANES = BYTES / 8, MANTISSA = 52, BIAS = 1023;
    static constexpr double ROUND = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double LEAST = -1021.0, MOST = 1023.0;
    static constexpr double HIGH = 1.3407807929942597e154;  // 2^512
};

template <class T>
using Vector = typename Simd<T>::Vector;

template <class T>
inline Vector<T> load(const T* from) {
    Vector<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class T>
inline void store(T* to, Vector<T> v) {
    std::memcpy(to, &v, sizeof v);
}

template <class T>
inline Vector<T> fill(T value) {
    return value - Vector<T>{};  // x - 0 is x, also for -0: compilers make it a broadcast
}

#if defined(__AVX512F__)
inline FloatVector larger(FloatVector a, FloatVector b) {
    return (FloatVector)_mm512_max_ps((__m512)a, (__m512)b);
}
inline DoubleVector larger(DoubleVector a, DoubleVector b) {
    return (DoubleVector)_mm512_max_pd((__m512d)a, (__m512d)b);
}
inline FloatVector smaller(FloatVector a, FloatVector b) {
    return (FloatVector)_mm512_min_ps((__m512)a, (__m512)b);
}
inline DoubleVector smaller(DoubleVector a, DoubleVector b) {
    return (DoubleVector)_mm512_min_pd((__m512d)a, (__m512d)b);
}
inline FloatVector root(FloatVector a) { return (FloatVector)_mm512_sqrt_ps((__m512)a); }
inline DoubleVector root(DoubleVector a) { return (DoubleVector)_mm512_sqrt_pd((__m512d)a); }
#else
template <class V>
inline V larger(V a, V b) {
    return a > b ? a : b;
}
template <class V>
inline V smaller(V a, V b) {
    return a < b ? a : b;
}
template <class V>
inline V root(V a) {
    constexpr bool NARROW = sizeof(a[0]) == 4;
    for (unsigned l = 0; l < sizeof(V) / sizeof(a[0]); ++l)
        a[l] = NARROW ? __builtin_sqrtf(a[l]) : __builtin_sqrt(a[l]);
    return a;
}
#endif

#if defined(__AVX512F__)
template <class T>
inline T sum(Vector<T> v) {
    if constexpr (sizeof(T) == 4)
        return _mm512_reduce_add_ps((__m512)v);
    else
        return _mm512_reduce_add_pd((__m512d)v);
}

template <class T>
inline T largest(Vector<T> v) {
    if constexpr (sizeof(T) == 4)
        return _mm512_reduce_max_ps((__m512)v);
    else
        return _mm512_reduce_max_pd((__m512d)v);
}
#else
template <class T>
inline T sum(Vector<T> v) {
    T total = 0;
    for (int l = 0; l < Simd<T>::LANES; ++l) total += v[l];
    return total;
}

template <class T>
inline T largest(Vector<T> v) {
    T top = v[0];
    for (int l = 1; l < Simd<T>::LANES; ++l) top = v[l] > top ? v[l] : top;
    return top;
}
#endif

// 2^r for |r| <= 1/2, polynomials of least relative error: 7.5e-8 in float, 3e-18 in double.
inline FloatVector exp2_fraction(FloatVector r) {
    FloatVector p = fill<float>(0.0013276472631950877055f);
    p = p * r + 0.0096755413431213273895f;
    p = p * r + 0.055507132718556442019f;
    p = p * r + 0.24022119723710719626f;
    p = p * r + 0.69314696706503521429f;
    return p * r + 1.0000000716547141446f;
}

inline DoubleVector exp2_fraction(DoubleVector r) {
    DoubleVector p = fill<double>(4.4352827069572771511e-10);
    p = p * r + 7.0741056135081427963e-9;
    p = p * r + 1.0178198021671930844e-7;
    p = p * r + 1.321543308967639918e-6;
    p = p * r + 0.000015252733489988525649;
    p = p * r + 0.00015403530462514432062;
    p = p * r + 0.0013333558146789921722;
    p = p * r + 0.0096181291075883352443;
    p = p * r + 0.055504108664819921605;
    p = p * r + 0.24022650695910156204;
    p = p * r + 0.69314718055994533046;
    return p * r + 0.9999999999999999971;
}

// 2^x for LEAST <= x <= MOST.
template <class T>
inline Vector<T> exp2_bounded(Vector<T> x) {
    using S = Simd<T>;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        __m512 n = _mm512_roundscale_ps((__m512)x, 0);
        return (FloatVector)_mm512_scalef_ps((__m512)exp2_fraction(x - (FloatVector)n), n);
    } else {
        __m512d n = _mm512_roundscale_pd((__m512d)x, 0);
        return (DoubleVector)_mm512_scalef_pd((__m512d)exp2_fraction(x - (DoubleVector)n), n);
    }
#else
    Vector<T> shifted = x + S::ROUND;
    Vector<T> p = exp2_fraction(x - (shifted - S::ROUND));
    return (Vector<T>)((typename S::Bits)p + ((typename S::Bits)shifted << S::MANTISSA));
#endif
}

// 2^x where x <= 0 is relative to the largest of a sum: what is too small to count stays tiny, but
// never subnormal.
template <class T>
inline Vector<T> exp2_relative(Vector<T> x) {
    return exp2_bounded<T>(larger(x, fill<T>(Simd<T>::LEAST)));
}

// 2^x where x may lie above the range: then the result is above HIGH, perhaps infinite.
template <class T>
inline Vector<T> exp2_guarded(Vector<T> x) {
#if defined(__AVX512F__)
    return exp2_relative<T>(x);
#else
    return exp2_relative<T>(smaller(x, fill<T>(Simd<T>::MOST)));
#endif
}

// Where 2^x is to be multiplied, by numbers down to 2^-16, it must be larger for no product to be
// subnormal.
template <class T>
constexpr T LEAST_FACTOR = Simd<T>::LEAST + 16;

// 2^x with an exact 0 for what would be (nearly) subnormal, so that a weight of zero carries no
// mass.
template <class T>
inline Vector<T> exp2_or_zero(Vector<T> x, T least = Simd<T>::LEAST) {
    using S = Simd<T>;
    Vector<T> bounded = smaller(larger(x, fill<T>(S::LEAST)), fill<T>(S::MOST));
    auto keep = x >= least;  // all bits set where true
    return (Vector<T>)((typename S::Bits)exp2_bounded<T>(bounded) & keep);
}

// log2 of a positive normal number: exponent, and the series of artanh for a mantissa within
// [sqrt(1/2), sqrt(2)).
template <class T>
inline Vector<T> log2_positive(Vector<T> x) {
    using S = Simd<T>;
    using Bits = typename S::Bits;
    Bits bits = (Bits)x;
    const Bits root_half = (Bits)fill<T>(T(0.70710678118654752440));
    Bits offset = bits - root_half;
    Bits exponent = offset >> S::MANTISSA;
    Vector<T> mantissa = (Vector<T>)(bits - (exponent << S::MANTISSA));
    // exponent + ROUND in floating point, whose last bits count units
    Vector<T> whole = (Vector<T>)((Bits)fill<T>(S::ROUND) + exponent) - S::ROUND;
    Vector<T> s = (mantissa - T(1)) / (mantissa + T(1));
    Vector<T> t = s * s;
    constexpr int TERMS = sizeof(T) == 4 ? 5 : 12;
    Vector<T> series = fill<T>(T(1) / T(2 * TERMS - 1));
    for (int k = TERMS - 1; k > 0; --k) series = series * t + T(1) / T(2 * k - 1);
    return whole + s * series * T(2.8853900817779268147);  // 2 / ln 2
}

}  // namespace sinkdiv::SINKDIV_ISA
