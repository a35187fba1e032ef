// The one inner loop of all kernels: a few rows of coefficients times a matrix whose rows lie one after another, in
// whatever format; nothing is opened to memory.
#pragma once

namespace {

inline V::F expf(V::F x) {  // for x ≤ 0, and NaN; 0 below −87
    V::F y = V::max(V::set(-87.0f), x);
    V::F n = V::round(V::mul(y, V::set(1.44269504089f)));
    V::F r = V::fma(n, V::set(-0.693359375f), y);
    r = V::fma(n, V::set(2.12194440e-4f), r);
    V::F p = V::set(1.9875691500e-4f);
    p = V::fma(p, r, V::set(1.3981999507e-3f));
    p = V::fma(p, r, V::set(8.3334519073e-3f));
    p = V::fma(p, r, V::set(4.1665795894e-2f));
    p = V::fma(p, r, V::set(1.6666665459e-1f));
    p = V::fma(p, r, V::set(5.0000001201e-1f));
    p = V::add(V::fma(V::mul(r, r), p, r), V::set(1.0f));
    return V::less(x, V::set(-87.0f), V::set(0.0f), V::mul(p, V::power(n)));
}

#if defined(__AVX512F__)
// 2^x within 7.5e-5 of it, which is a 25th of what rounding the result to bfloat16 costs
inline V::F exp2(V::F x) {
    V::F rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    V::F p = V::fma(V::set(0.07802452f), rest, V::set(0.22606716f));
    p = V::fma(p, rest, V::set(0.69583354f));
    p = V::fma(p, rest, V::set(0.99992522f));
    return _mm512_scalef_ps(p, x);
}
#endif

inline V::F tanhf(V::F x) {
    V::F zero = V::set(0.0f), one = V::set(1.0f), minus = V::sub(zero, x), size = V::max(x, minus);
    V::F t = expf(V::mul(V::set(-2.0f), size));
    V::F far = V::div(V::sub(one, t), V::add(one, t));
    far = V::less(x, zero, V::sub(zero, far), far);
    V::F square = V::mul(x, x);  // near 0 the quotient would cancel; a series does not
    V::F p = V::set(-1382.0f / 155925.0f);
    p = V::fma(p, square, V::set(62.0f / 2835.0f));
    p = V::fma(p, square, V::set(-17.0f / 315.0f));
    p = V::fma(p, square, V::set(2.0f / 15.0f));
    p = V::fma(p, square, V::set(-1.0f / 3.0f));
    V::F near = V::fma(V::mul(p, square), x, x);
    return V::less(size, V::set(0.35f), near, far);
}

// How the rows of a matrix are read: `bytes` of a row of n columns, and vectors of a block that begins at `at`. Block
// vector i holds columns column(i, at, n)… . `width`: columns, or bytes for nibbles, over which `at` runs.
struct Float {
    static int64_t bytes(int64_t n) { return 4 * n; }
    static int64_t width(int64_t n) { return n; }
    template <int N>
    static int64_t column(int i, int64_t at, int64_t) {
        return at + i * V::W;
    }
    template <int N>
    static void read(const char* row, int64_t at, V::F* out) {
        const float* p = reinterpret_cast<const float*>(row) + at;
        for (int i = 0; i < N; i++) out[i] = V::load(p + i * V::W);
    }
    static constexpr int DENSITY = 1;
};

template <bool BRAIN>
struct Half : Float {
    static int64_t bytes(int64_t n) { return 2 * n; }
    template <int N>
    static void read(const char* row, int64_t at, V::F* out) {
        const uint16_t* p = reinterpret_cast<const uint16_t*>(row) + at;
        for (int i = 0; i < N; i++) out[i] = BRAIN ? V::bf16(p + i * V::W) : V::f16(p + i * V::W);
    }
};

struct Byte : Float {
    static int64_t bytes(int64_t n) { return n; }
    template <int N>
    static void read(const char* row, int64_t at, V::F* out) {
        const uint8_t* p = reinterpret_cast<const uint8_t*>(row) + at;
        for (int i = 0; i < N; i++) out[i] = V::u8(p + i * V::W);
    }
};

// Two codes to the byte: byte i holds columns i and i + n/2. n/2 is a multiple of W.
struct Nibble {
    static constexpr int DENSITY = 2;
    static int64_t bytes(int64_t n) { return n / 2; }
    static int64_t width(int64_t n) { return n / 2; }
    template <int N>
    static int64_t column(int i, int64_t at, int64_t n) {
        return i < N / 2 ? at + i * V::W : n / 2 + at + (i - N / 2) * V::W;
    }
    template <int N>
    static void read(const char* row, int64_t at, V::F* out) {
        const uint8_t* p = reinterpret_cast<const uint8_t*>(row) + at;
        for (int i = 0; i < N / 2; i++) V::nibbles(p + i * V::W, out[i], out[N / 2 + i]);
    }
};

// Coefficients a [M, lda]; out [M, ldo], which begins as `out · scale[m]` where scale is given, as bias[m] otherwise.
// groups > 1: the coefficient of row k for the columns of group c is a[k·groups + c].
struct Product {
    const char* rows;
    int64_t from, to, columns;
    const float* a;
    int64_t lda;
    const float *bias, *scale;
    float* out;
    int64_t ldo, groups;
    const char* next;  // read soon: as many rows as long; null: nothing
};

// SHARED: so many vectors after each other have the same coefficient; 0: all have.
template <class L, int M, int N, int SHARED>
void block(const Product& x, int64_t at, int64_t m, bool fetch) {
    V::F sum[M][N], b[N];
    int64_t column[N], group[N];
    const int64_t stride = L::bytes(x.columns), step = SHARED ? x.groups : 1;
    for (int i = 0; i < N; i++) {
        column[i] = L::template column<N>(i, at, x.columns);
        group[i] = SHARED ? column[i] * x.groups / x.columns : 0;
    }
    for (int j = 0; j < M; j++)
        for (int i = 0; i < N; i++)
            sum[j][i] = x.scale ? V::mul(V::load(x.out + (m + j) * x.ldo + column[i]), V::set(x.scale[m + j]))
                                : V::set(x.bias ? x.bias[m + j] : 0.0f);
    const float* a = x.a + m * x.lda + x.from * step;
    const int64_t lda = x.lda, lines = fetch ? stride : 0;
    const char *row = x.rows + x.from * stride, *end = x.rows + x.to * stride;
    const char* next = fetch ? x.next + x.from * stride : row;
    for (; row < end; row += stride, next += stride, a += step) {
        for (int64_t line = 0; line < lines; line += 64) __builtin_prefetch(next + line);
        L::template read<N>(row, at, b);
        for (int j = 0; j < M; j++) {
            if constexpr (SHARED > 0) {
                V::F c[N];
                for (int i = 0; i < N; i++) c[i] = i % SHARED ? c[i - 1] : V::set(a[j * lda + group[i]]);
                for (int i = 0; i < N; i++) sum[j][i] = V::fma(c[i], b[i], sum[j][i]);
            } else {
                V::F c = V::set(a[j * lda]);
                for (int i = 0; i < N; i++) sum[j][i] = V::fma(c, b[i], sum[j][i]);
            }
        }
    }
    for (int j = 0; j < M; j++)
        for (int i = 0; i < N; i++) V::store(x.out + (m + j) * x.ldo + column[i], sum[j][i]);
}

template <class L, int M, int SHARED>
void across(const Product& x, int64_t m, int64_t at, int64_t width) {
    constexpr int FULL = V::BLOCK, LEAST = L::DENSITY;
    bool fetch = x.next && m == 0;
    for (; at + FULL / LEAST * V::W <= width; at += FULL / LEAST * V::W, fetch = false)
        block<L, M, FULL, SHARED>(x, at, m, fetch);
    if constexpr (FULL > 2 && LEAST == 1)
        for (; at + 2 * V::W <= width; at += 2 * V::W, fetch = false) block<L, M, 2, (SHARED > 0)>(x, at, m, fetch);
    if constexpr (FULL > LEAST)
        for (; at < width; at += V::W, fetch = false) block<L, M, LEAST, (SHARED > 0)>(x, at, m, fetch);
}

// begin, width: of L::width(columns), only so much; whole vectors.
template <class L, int SHARED>
void multiply(const Product& x, int64_t many, int64_t begin, int64_t width) {
    int64_t blocks = (many + V::ROWS - 1) / V::ROWS, m = 0;
    for (int64_t i = 0; i < blocks; i++) {
        int64_t size = (many - m + blocks - i - 1) / (blocks - i);
        switch (size) {
            case 1: across<L, 1, SHARED>(x, m, begin, width); break;
            case 2: across<L, 2, SHARED>(x, m, begin, width); break;
            case 3: across<L, 3, SHARED>(x, m, begin, width); break;
            case 4: across<L, 4, SHARED>(x, m, begin, width); break;
            case 5:
                if constexpr (V::ROWS > 4) across<L, 5, SHARED>(x, m, begin, width);
                break;
            default:
                if constexpr (V::ROWS > 5) across<L, 6, SHARED>(x, m, begin, width);
                break;
        }
        m += size;
    }
}

template <class L, int SHARED>
void multiply(const Product& x, int64_t many) {
    multiply<L, SHARED>(x, many, 0, L::width(x.columns));
}

}  // namespace
