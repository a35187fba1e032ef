// Few rows of activations times matrices that lie row after row as torch's layers store them. Four rows of a matrix
// are read side by side, once for all activations; sums are float32, and a result is rounded once.
#pragma once

namespace {
namespace few_rows {

constexpr int64_t SPAN = Few::SPAN;

inline float wide(Kind kind, const char* p, int64_t i) {
    uint32_t bits;
    uint16_t half;
    float x;
    if (kind == Kind::f32) {
        __builtin_memcpy(&x, p + 4 * i, 4);
        return x;
    }
    __builtin_memcpy(&half, p + 2 * i, 2);
    if (kind == Kind::bf16) {
        bits = static_cast<uint32_t>(half) << 16;
        __builtin_memcpy(&x, &bits, 4);
        return x;
    }
    bits = static_cast<uint32_t>(half & 0x7fff) << 13;
    __builtin_memcpy(&x, &bits, 4);
    x *= 0x1p112f;  // moves the exponent, denormals included
    __builtin_memcpy(&bits, &x, 4);
    if ((half & 0x7c00) == 0x7c00) bits |= 0x7f800000;
    bits |= static_cast<uint32_t>(half & 0x8000) << 16;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

inline uint16_t narrow_bf16(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 64 : rounded);
}

inline uint16_t narrow_f16(float x) {
#if defined(__F16C__)
    return _cvtss_sh(x, 0);
#else
    uint32_t bits, size;
    __builtin_memcpy(&bits, &x, 4);
    uint32_t sign = bits >> 16 & 0x8000;
    size = bits & 0x7fffffff;
    if (size > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
    if (size >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
    if (size < 0x38800000) {  // denormals: adding 0.5 leaves their bits at the end
        float y;
        __builtin_memcpy(&y, &size, 4);
        y += 0.5f;
        __builtin_memcpy(&size, &y, 4);
        return static_cast<uint16_t>(sign | (size - 0x3f000000));
    }
    size += 0xc8000fff + (size >> 13 & 1);
    return static_cast<uint16_t>(sign | size >> 13);
#endif
}

inline void narrow(Kind kind, const float* from, char* to, int64_t n) {
    if (kind == Kind::f32) {
        __builtin_memcpy(to, from, static_cast<size_t>(4 * n));
        return;
    }
    uint16_t* out = reinterpret_cast<uint16_t*>(to);
    if (kind == Kind::bf16)
        for (int64_t i = 0; i < n; i++) out[i] = narrow_bf16(from[i]);
    else
        for (int64_t i = 0; i < n; i++) out[i] = narrow_f16(from[i]);
}

inline int64_t bytes_of(Kind kind) { return kind == Kind::f32 ? 4 : 2; }
inline int64_t padded(int64_t columns) { return (columns + 63) / 64 * 64; }

// Weights as floats, activations packed as float32 [T, padded K].
template <class L>
struct Plain {
    static constexpr int R = 4, M = V::W == 16 ? 4 : 2;

    static size_t packed(const Few& few) { return static_cast<size_t>(4 * few.rows * padded(few.columns)); }

    static void pack(const Few& few) {
        const int64_t size = padded(few.columns), step = bytes_of(few.kind);
        float* to = reinterpret_cast<float*>(few.packed);
        for (int64_t t = 0; t < few.rows; t++, to += size) {
            const char* from = few.x + t * few.columns * step;
            for (int64_t k = 0; k < few.columns; k++) to[k] = wide(few.kind, from, k);
            for (int64_t k = few.columns; k < size; k++) to[k] = 0;
        }
    }

    template <int ROWS, int MANY>
    static void dots(const Few& few, const char* const* rows, int64_t t, int64_t ahead, float* out) {
        const int64_t size = padded(few.columns), unit = L::bytes(1);
        const float* x = reinterpret_cast<const float*>(few.packed) + t * size;
        V::F sum[ROWS][MANY], w[ROWS];
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) sum[r][m] = V::set(0.0f);
        int64_t k = 0;
        for (; k + V::W <= few.columns; k += V::W) {
            for (int r = 0; r < ROWS; r++) {
                if (t == 0) __builtin_prefetch(rows[r] + k * unit + ahead);
                L::template read<1>(rows[r], k, &w[r]);
            }
            for (int m = 0; m < MANY; m++) {
                V::F a = V::load(x + m * size + k);
                for (int r = 0; r < ROWS; r++) sum[r][m] = V::fma(w[r], a, sum[r][m]);
            }
        }
        if (k < few.columns)
            for (int r = 0; r < ROWS; r++) {
                char rest[4 * V::W] = {};
                __builtin_memcpy(rest, rows[r] + k * unit, static_cast<size_t>((few.columns - k) * unit));
                L::template read<1>(rest, 0, w);
                for (int m = 0; m < MANY; m++) sum[r][m] = V::fma(*w, V::load(x + m * size + k), sum[r][m]);
            }
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) out[m * SPAN + r] = V::sum(sum[r][m]);
    }
};

#if defined(__AVX512BF16__)
// Both in bfloat16, multiplied in pairs; activations are packed only where their rows have no whole number of vectors.
struct Pairs {
    static constexpr int R = 4, M = 4, STEP = 32;

    static int64_t size(const Few& few) { return (few.columns + STEP - 1) / STEP * STEP; }
    static bool whole(const Few& few) { return few.columns % STEP == 0; }
    static size_t packed(const Few& few) { return whole(few) ? 0 : static_cast<size_t>(2 * few.rows * size(few)); }

    static void pack(const Few& few) {
        if (whole(few)) return;
        const int64_t to = 2 * size(few), from = 2 * few.columns;
        for (int64_t t = 0; t < few.rows; t++) {
            __builtin_memcpy(few.packed + t * to, few.x + t * from, static_cast<size_t>(from));
            __builtin_memset(few.packed + t * to + from, 0, static_cast<size_t>(to - from));
        }
    }

    static __m512bh read(const char* p) { return (__m512bh)_mm512_loadu_si512(p); }

    template <int ROWS, int MANY>
    static void dots(const Few& few, const char* const* rows, int64_t t, int64_t ahead, float* out) {
        const int64_t stride = 2 * size(few), end = 2 * few.columns;
        const char* x = (whole(few) ? few.x : few.packed) + t * stride;
        __m512 sum[ROWS][MANY];
        __m512bh w[ROWS];
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) sum[r][m] = _mm512_setzero_ps();
        int64_t k = 0;
        for (; k + 64 <= end; k += 64) {
            for (int r = 0; r < ROWS; r++) {
                if (t == 0) __builtin_prefetch(rows[r] + k + ahead);
                w[r] = read(rows[r] + k);
            }
            for (int m = 0; m < MANY; m++) {
                __m512bh a = read(x + m * stride + k);
                for (int r = 0; r < ROWS; r++) sum[r][m] = _mm512_dpbf16_ps(sum[r][m], w[r], a);
            }
        }
        if (k < end) {
            const __mmask32 rest = (1u << (end - k) / 2) - 1;
            for (int r = 0; r < ROWS; r++) {
                *w = (__m512bh)_mm512_maskz_loadu_epi16(rest, rows[r] + k);
                for (int m = 0; m < MANY; m++)
                    sum[r][m] = _mm512_dpbf16_ps(sum[r][m], *w, read(x + m * stride + k));
            }
        }
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) out[m * SPAN + r] = _mm512_reduce_add_ps(sum[r][m]);
    }
};
using Brain = Pairs;
#else
using Brain = Plain<Half<true>>;
#endif

template <class Use>
auto with(Kind stored, Use use) {
    switch (stored) {
        case Kind::f32: return use(Plain<Float>());
        case Kind::bf16: return use(Brain());
        default: return use(Plain<Half<false>>());
    }
}

size_t packed(const Few& few) {
    return with(few.stored, [&](auto way) { return decltype(way)::packed(few); });
}

void pack(const Few& few) {
    with(few.stored, [&](auto way) { decltype(way)::pack(few); });
}

template <class Way, int ROWS>
void over(const Few& few, const char* const* rows, int64_t ahead, float* out) {
    int64_t t = 0;
    for (; t + Way::M <= few.rows; t += Way::M)
        Way::template dots<ROWS, Way::M>(few, rows, t, ahead, out + t * SPAN);
    switch (few.rows - t) {
        case 1: return Way::template dots<ROWS, 1>(few, rows, t, ahead, out + t * SPAN);
        case 2:
            if constexpr (Way::M > 2) return Way::template dots<ROWS, 2>(few, rows, t, ahead, out + t * SPAN);
            return;
        case 3:
            if constexpr (Way::M > 3) return Way::template dots<ROWS, 3>(few, rows, t, ahead, out + t * SPAN);
            return;
        default: return;
    }
}

// Rows from…to of the matrix times the activations, with its bias: out [T, SPAN].
template <class Way>
void products(const Few& few, const Matrix& matrix, int64_t from, int64_t to, float* out) {
    const int64_t stride = few.columns * bytes_of(few.stored);
    const int64_t block = Way::R * stride, ahead = block <= 16384 ? block : 2048;
    int64_t n = from;
    const char* rows[Way::R];
    for (; n + Way::R <= to; n += Way::R) {
        for (int r = 0; r < Way::R; r++) rows[r] = matrix.weight + (n + r) * stride;
        over<Way, Way::R>(few, rows, ahead, out + n - from);
    }
    for (; n < to; n++) {
        rows[0] = matrix.weight + n * stride;
        over<Way, 1>(few, rows, ahead, out + n - from);
    }
    if (matrix.bias)
        for (int64_t i = from; i < to; i++) {
            const float bias = wide(few.kind, matrix.bias, i);
            for (int64_t t = 0; t < few.rows; t++) out[t * SPAN + i - from] += bias;
        }
}

inline V::F sigmoid(V::F x) {
    const V::F zero = V::set(0.0f), one = V::set(1.0f);
    V::F e = expf(V::less(x, zero, x, V::sub(zero, x)));
    return V::div(V::less(x, zero, e, one), V::add(one, e));
}

// values = act(values) · factors
inline void act(Act how, float* values, const float* factors, int64_t n) {
    for (int64_t i = 0; i < n; i += V::W) {
        V::F x = V::load(values + i), y = V::load(factors + i);
        if (how == Act::silu) {
            x = V::mul(x, sigmoid(x));
        } else if (how == Act::gelu_tanh) {
            const V::F half = V::mul(V::set(0.5f), x), cube = V::mul(V::mul(x, x), x);
            const V::F in = V::mul(V::set(0.7978845608028654f), V::fma(V::set(0.044715f), cube, x));
            x = V::fma(half, tanhf(in), half);
        } else {
            float one[V::W];
            V::store(one, x);
            for (int j = 0; j < V::W; j++) one[j] *= 0.5f + 0.5f * __builtin_erff(one[j] * 0.70710678118654752f);
            x = V::load(one);
        }
        V::store(values + i, V::mul(x, y));
    }
}

// Rows from…to, at most SPAN, of the matrix; with a gate act(gate) times them. out [T, N].
void linear(const Few& few, const Matrix* gate, Act how, const Matrix& matrix, int64_t from, int64_t to, char* out) {
    float values[Few::MOST * SPAN], gates[Few::MOST * SPAN];
    const int64_t n = to - from;
    with(few.stored, [&](auto way) {
        products<decltype(way)>(few, matrix, from, to, values);
        if (gate) products<decltype(way)>(few, *gate, from, to, gates);
    });
    for (int64_t t = 0; t < few.rows; t++) {
        float* row = values + t * SPAN;
        if (gate) {
            for (int64_t i = n; i % V::W; i++) row[i] = gates[t * SPAN + i] = 0;
            act(how, gates + t * SPAN, row, n);
            row = gates + t * SPAN;
        }
        narrow(few.kind, row, out + (t * matrix.rows + from) * bytes_of(few.kind), n);
    }
}

template <class L>
void normalize(const Norm& norm, float* scratch) {
    const int64_t k = norm.columns, unit = bytes_of(norm.kind), whole = k / V::W * V::W;
    auto read = [&](const char* row, int64_t at) {
        V::F x;
        L::template read<1>(row, at, &x);
        return x;
    };
    for (int64_t t = 0; t < norm.rows; t++) {
        const char* x = norm.x + t * k * unit;
        if (norm.residual) {
            char* sum = norm.residual + t * k * unit;
            for (int64_t i = 0; i < whole; i += V::W) V::store(scratch + i, V::add(read(x, i), read(sum, i)));
            for (int64_t i = whole; i < k; i++) scratch[i] = wide(norm.kind, x, i) + wide(norm.kind, sum, i);
            narrow(norm.kind, scratch, sum, k);
            x = sum;
        }
        V::F squares = V::set(0.0f);
        float rest = 0;
        for (int64_t i = 0; i < whole; i += V::W) {
            V::F y = read(x, i);
            squares = V::fma(y, y, squares);
        }
        for (int64_t i = whole; i < k; i++) rest += wide(norm.kind, x, i) * wide(norm.kind, x, i);
        const float scale = 1.0f / __builtin_sqrtf((V::sum(squares) + rest) / static_cast<float>(k) + norm.eps);
        const float plus = norm.plus_one ? 1.0f : 0.0f;
        for (int64_t i = 0; i < whole; i += V::W) {
            V::F y = V::mul(read(x, i), V::set(scale));
            V::store(scratch + i, V::mul(y, V::add(read(norm.weight, i), V::set(plus))));
        }
        for (int64_t i = whole; i < k; i++)
            scratch[i] = wide(norm.kind, x, i) * scale * (wide(norm.kind, norm.weight, i) + plus);
        narrow(norm.kind, scratch, norm.out + t * k * unit, k);
    }
}

// scratch: a row of floats
void rms_norm(const Norm& norm, float* scratch) {
    switch (norm.kind) {
        case Kind::f32: return normalize<Float>(norm, scratch);
        case Kind::bf16: return normalize<Half<true>>(norm, scratch);
        default: return normalize<Half<false>>(norm, scratch);
    }
}

}  // namespace few_rows
}  // namespace
