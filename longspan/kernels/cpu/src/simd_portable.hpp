// Four floats at a time in the compiler's own vectors: SSE, NEON, or whatever the target has.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct V {
    static constexpr int W = 4, BLOCK = 2, ROWS = 4;
    typedef float F __attribute__((vector_size(16)));
    typedef int32_t I __attribute__((vector_size(16)));
    typedef uint16_t H __attribute__((vector_size(8)));
    typedef uint8_t B __attribute__((vector_size(4)));

    template <class T, class P>
    static T get(const P* p) {
        T x;
        std::memcpy(&x, p, sizeof x);
        return x;
    }
    static F load(const float* p) { return get<F>(p); }
    static void store(float* p, F x) { std::memcpy(p, &x, sizeof x); }
    static F set(float x) { return F{x, x, x, x}; }
    static F fma(F a, F b, F c) { return a * b + c; }
    static F add(F a, F b) { return a + b; }
    static F sub(F a, F b) { return a - b; }
    static F mul(F a, F b) { return a * b; }
    static F div(F a, F b) { return a / b; }
    static F max(F a, F b) { return a > b ? a : b; }  // b where either is NaN
    static F less(F x, F limit, F yes, F no) { return x < limit ? yes : no; }
    static F bf16(const uint16_t* p) { return (F)(__builtin_convertvector(get<H>(p), I) << 16); }
    static F f16(const uint16_t* p) {
        I h = __builtin_convertvector(get<H>(p), I);
        I sign = (h & 0x8000) << 16, bits = (h & 0x7fff) << 13;
        F x = (F)bits * 0x1p112f;  // moves the exponent, denormals included
        I whole = (I)x | (((h & 0x7c00) == 0x7c00) & 0x7f800000);
        return (F)(whole | sign);
    }
    static F u8(const uint8_t* p) { return __builtin_convertvector(__builtin_convertvector(get<B>(p), I), F); }
    static void bytes(F x, uint8_t* out) {  // of whole numbers 0…255
        for (int i = 0; i < W; i++) out[i] = static_cast<uint8_t>(x[i]);
    }
    static void nibbles(const uint8_t* p, F& low, F& high) {
        I x = __builtin_convertvector(get<B>(p), I);
        low = __builtin_convertvector(x & 15, F);
        high = __builtin_convertvector(x >> 4, F);
    }
    static void pairs(const uint8_t* p, F* codes) {
        I x = __builtin_convertvector(get<B>(p), I);
        for (int j = 0; j < 4; j++) codes[j] = __builtin_convertvector((x >> (2 * j)) & 3, F);
    }
    // low: a[0], b[0], a[1], b[1]; high: what follows
    static void zip(F a, F b, F& low, F& high) {
        low = F{a[0], b[0], a[1], b[1]};
        high = F{a[2], b[2], a[3], b[3]};
    }
    // 2^n for whole n, −126…127
    static F power(F n) { return (F)((__builtin_convertvector(n, I) + 127) << 23); }
    static F round(F x) {
        F magic = set(12582912.0f);
        return (x + magic) - magic;
    }
    // x where from ≤ lane < to, −inf elsewhere
    static F only(F x, int64_t from, int64_t to) {
        F out = set(-__builtin_inff());
        for (int i = 0; i < W; i++)
            if (i >= from && i < to) out[i] = x[i];
        return out;
    }
    // w[0], … each 2^log times
    static F spread(const float* w, int log) { return F{w[0], w[1 >> log], w[2 >> log], w[3 >> log]}; }
    static bool above(F x, float limit) {  // any of them
        return x[0] > limit || x[1] > limit || x[2] > limit || x[3] > limit;
    }
    static float most(F x) {
        float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
        return a > b ? a : b;
    }
    static float sum(F x) { return (x[0] + x[1]) + (x[2] + x[3]); }
};

}  // namespace
