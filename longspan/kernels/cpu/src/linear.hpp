// Few rows of activations times matrices that lie row after row as torch's layers store them. Four rows of a matrix
// are read side by side, once for all activations, and what follows them is fetched in the order of addresses: fetched
// row by row it came a tenth slower; sums are float32, and a result is rounded once.
#pragma once

namespace {
namespace few_rows {

constexpr int64_t SPAN = Activations::SPAN;

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
    static int64_t stride(int64_t columns) { return L::bytes(columns); }

    static size_t packed(const Activations& given) {
        return static_cast<size_t>(4 * given.rows * padded(given.columns));
    }

    static void pack(const Activations& given) {
        const int64_t size = padded(given.columns), step = bytes_of(given.kind);
        float* to = reinterpret_cast<float*>(given.packed);
        for (int64_t t = 0; t < given.rows; t++, to += size) {
            const char* from = given.x + t * given.columns * step;
            for (int64_t k = 0; k < given.columns; k++) to[k] = wide(given.kind, from, k);
            for (int64_t k = given.columns; k < size; k++) to[k] = 0;
        }
    }

    template <int ROWS, int MANY>
    static void dots(const Activations& given, const char* const* rows, int64_t t, int64_t ahead, float* out) {
        const int64_t size = padded(given.columns), unit = L::bytes(1);
        const float* x = reinterpret_cast<const float*>(given.packed) + t * size;
        V::F sum[ROWS][MANY], w[ROWS];
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) sum[r][m] = V::set(0.0f);
        const char* soon = rows[0] + ahead;
        int64_t k = 0;
        for (; k + V::W <= given.columns; k += V::W) {
            for (int r = 0; r < ROWS; r++, soon += V::W * unit) {
                if (t == 0) __builtin_prefetch(soon);
                L::template read<1>(rows[r], k, &w[r]);
            }
            for (int m = 0; m < MANY; m++) {
                V::F a = V::load(x + m * size + k);
                for (int r = 0; r < ROWS; r++) sum[r][m] = V::fma(w[r], a, sum[r][m]);
            }
        }
        if (k < given.columns)
            for (int r = 0; r < ROWS; r++) {
                char rest[4 * V::W] = {};
                __builtin_memcpy(rest, rows[r] + k * unit, static_cast<size_t>((given.columns - k) * unit));
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

    static int64_t stride(int64_t columns) { return 2 * columns; }
    static int64_t size(const Activations& given) { return (given.columns + STEP - 1) / STEP * STEP; }
    static bool whole(const Activations& given) { return given.columns % STEP == 0; }
    static size_t packed(const Activations& given) {
        return whole(given) ? 0 : static_cast<size_t>(2 * given.rows * size(given));
    }

    static void pack(const Activations& given) {
        if (whole(given)) return;
        const int64_t to = 2 * size(given), from = 2 * given.columns;
        for (int64_t t = 0; t < given.rows; t++) {
            __builtin_memcpy(given.packed + t * to, given.x + t * from, static_cast<size_t>(from));
            __builtin_memset(given.packed + t * to + from, 0, static_cast<size_t>(to - from));
        }
    }

    static __m512bh read(const char* p) { return (__m512bh)_mm512_loadu_si512(p); }

    template <int ROWS, int MANY>
    static void dots(const Activations& given, const char* const* rows, int64_t t, int64_t ahead, float* out) {
        const int64_t stride = 2 * size(given), end = 2 * given.columns;
        const char* x = (whole(given) ? given.x : given.packed) + t * stride;
        __m512 sum[ROWS][MANY];
        __m512bh w[ROWS];
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) sum[r][m] = _mm512_setzero_ps();
        const char* soon = rows[0] + ahead;
        int64_t k = 0;
        for (; k + 64 <= end; k += 64) {
            for (int r = 0; r < ROWS; r++, soon += 64) {
                if (t == 0) __builtin_prefetch(soon);
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
                for (int m = 0; m < MANY; m++) sum[r][m] = _mm512_dpbf16_ps(sum[r][m], *w, read(x + m * stride + k));
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

// Codes of BITS with one scale for GROUP channels; a row is its codes, then its scales in bfloat16. Of a group's 4-bit
// codes byte i holds channels i and i + 32, the first lowest.
template <int BITS>
struct Codes : Plain<Float> {
    static constexpr int64_t GROUP = 64, BYTES = GROUP * BITS / 8;
    static int64_t stride(int64_t columns) { return padded(columns) / GROUP * (BYTES + 2); }

    template <int ROWS, int MANY>
    static void dots(const Activations& given, const char* const* rows, int64_t t, int64_t ahead, float* out) {
        const int64_t size = padded(given.columns), groups = size / GROUP;
        const float* x = reinterpret_cast<const float*>(given.packed) + t * size;
        V::F sum[ROWS][MANY];
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) sum[r][m] = V::set(0.0f);
        const char* soon = rows[0] + ahead;
        for (int64_t g = 0; g < groups; g++, x += GROUP) {
            V::F scale[ROWS], zero[ROWS];
            for (int r = 0; r < ROWS; r++, soon += BYTES) {
                if (t == 0) __builtin_prefetch(soon);
                const float s = wide(Kind::bf16, rows[r] + groups * BYTES, g);
                scale[r] = V::set(s);
                zero[r] = V::set(s * -(1 << (BITS - 1)));
            }
            for (int64_t k = 0; k < BYTES; k += V::W) {
                constexpr int EACH = BITS == 4 ? 2 : 1;
                V::F w[ROWS][EACH];
                for (int r = 0; r < ROWS; r++) {
                    const uint8_t* codes = reinterpret_cast<const uint8_t*>(rows[r] + g * BYTES + k);
                    if constexpr (EACH == 2)
                        V::nibbles(codes, w[r][0], w[r][1]);
                    else
                        w[r][0] = V::u8(codes);
                    for (int e = 0; e < EACH; e++) w[r][e] = V::fma(w[r][e], scale[r], zero[r]);
                }
                for (int e = 0; e < EACH; e++)
                    for (int m = 0; m < MANY; m++) {
                        V::F a = V::load(x + m * size + e * BYTES + k);
                        for (int r = 0; r < ROWS; r++) sum[r][m] = V::fma(w[r][e], a, sum[r][m]);
                    }
            }
        }
        for (int r = 0; r < ROWS; r++)
            for (int m = 0; m < MANY; m++) out[m * SPAN + r] = V::sum(sum[r][m]);
    }
};

template <class Use>
auto with(Kind stored, Use use) {
    switch (stored) {
        case Kind::f32: return use(Plain<Float>());
        case Kind::bf16: return use(Brain());
        case Kind::int8: return use(Codes<8>());
        case Kind::int4: return use(Codes<4>());
        default: return use(Plain<Half<false>>());
    }
}

size_t packed(const Activations& given) {
    return with(given.stored, [&](auto way) { return decltype(way)::packed(given); });
}

void pack(const Activations& given) {
    with(given.stored, [&](auto way) { decltype(way)::pack(given); });
}

template <class Way, int ROWS>
void over(const Activations& given, const char* const* rows, int64_t ahead, float* out) {
    int64_t t = 0;
    for (; t + Way::M <= given.rows; t += Way::M)
        Way::template dots<ROWS, Way::M>(given, rows, t, ahead, out + t * SPAN);
    switch (given.rows - t) {
        case 1: return Way::template dots<ROWS, 1>(given, rows, t, ahead, out + t * SPAN);
        case 2:
            if constexpr (Way::M > 2) return Way::template dots<ROWS, 2>(given, rows, t, ahead, out + t * SPAN);
            return;
        case 3:
            if constexpr (Way::M > 3) return Way::template dots<ROWS, 3>(given, rows, t, ahead, out + t * SPAN);
            return;
        default: return;
    }
}

// Rows from…to of each matrix, biases added: out[i] [T, SPAN]. Several matrices are read in turn, four rows of each.
template <class Way, int MATRICES>
void products(const Activations& given, const Matrix* const* matrices, int64_t from, int64_t to,
              float (*out)[Activations::FEW * SPAN]) {
    const int64_t stride = Way::stride(given.columns);
    const int64_t ahead = 2 * Way::R * stride;  // read soon, in the order of addresses
    const char* rows[Way::R];
    int64_t n = from;
    for (; n + Way::R <= to; n += Way::R)
        for (int i = 0; i < MATRICES; i++) {
            for (int r = 0; r < Way::R; r++) rows[r] = matrices[i]->weight + (n + r) * stride;
            over<Way, Way::R>(given, rows, ahead, out[i] + n - from);
        }
    for (; n < to; n++)
        for (int i = 0; i < MATRICES; i++) {
            rows[0] = matrices[i]->weight + n * stride;
            over<Way, 1>(given, rows, ahead, out[i] + n - from);
        }
    for (int i = 0; i < MATRICES; i++)
        if (matrices[i]->bias)
            for (n = from; n < to; n++) {
                const float bias = wide(given.kind, matrices[i]->bias, n);
                for (int64_t t = 0; t < given.rows; t++) out[i][t * SPAN + n - from] += bias;
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
void linear(const Activations& given, const Matrix* gate, Act how, const Matrix& matrix, int64_t from, int64_t to,
            char* out) {
    float sums[2][Activations::FEW * SPAN];
    const Matrix* const both[2] = {&matrix, gate};
    const int64_t n = to - from;
    with(given.stored, [&](auto way) {
        using Way = decltype(way);
        gate ? products<Way, 2>(given, both, from, to, sums) : products<Way, 1>(given, both, from, to, sums);
    });
    for (int64_t t = 0; t < given.rows; t++) {
        float *row = sums[0] + t * SPAN, *gates = sums[1] + t * SPAN;
        if (gate) {
            for (int64_t i = n; i % V::W; i++) row[i] = gates[i] = 0;
            act(how, gates, row, n);
            row = gates;
        }
        narrow(given.kind, row, out + (t * matrix.rows + from) * bytes_of(given.kind), n);
    }
}

// Rows from…to of a matrix of codes as numbers of the activations' kind, out [to − from, K].
void open(const Activations& given, const Matrix& matrix, int64_t from, int64_t to, char* out) {
    const bool wide8 = given.stored == Kind::int8;
    const int64_t size = padded(given.columns), bytes = wide8 ? 64 : 32;
    const int64_t stride = wide8 ? Codes<8>::stride(given.columns) : Codes<4>::stride(given.columns);
    for (int64_t n = from; n < to; n++) {
        const char* row = matrix.weight + n * stride;
        for (int64_t g = 0; g < size / 64; g++) {
            float values[64];
            const float s = wide(Kind::bf16, row + size / 64 * bytes, g);
            const V::F scale = V::set(s), zero = V::set(s * (wide8 ? -128.0f : -8.0f));
            for (int64_t k = 0; k < bytes; k += V::W) {
                const uint8_t* codes = reinterpret_cast<const uint8_t*>(row + g * bytes + k);
                V::F low, high;
                if (wide8) {
                    low = V::u8(codes);
                } else {
                    V::nibbles(codes, low, high);
                    V::store(values + 32 + k, V::fma(high, scale, zero));
                }
                V::store(values + k, V::fma(low, scale, zero));
            }
            const int64_t left = given.columns - g * 64, many = left < 64 ? left : 64;
            narrow(given.kind, values, out + ((n - from) * given.columns + g * 64) * bytes_of(given.kind), many);
        }
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
            const char* other = norm.residual + t * k * unit;
            char* sum = norm.sum + t * k * unit;
            for (int64_t i = 0; i < whole; i += V::W) V::store(scratch + i, V::add(read(x, i), read(other, i)));
            for (int64_t i = whole; i < k; i++) scratch[i] = wide(norm.kind, x, i) + wide(norm.kind, other, i);
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
