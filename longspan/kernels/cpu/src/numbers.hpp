// Numbers as tensors store them, one at a time. For what little is done to rows between kernels; no instruction set is
// assumed.
#pragma once

#include <cstdint>
#include <cstring>

namespace longspan {
namespace numbers {

inline uint32_t bits(float x) {
    uint32_t out;
    std::memcpy(&out, &x, sizeof out);
    return out;
}

inline float real(uint32_t x) {
    float out;
    std::memcpy(&out, &x, sizeof out);
    return out;
}

struct Float {
    using T = float;
    static float read(T x) { return x; }
    static T write(float x) { return x; }
};

struct Brain {
    using T = uint16_t;
    static float read(T x) { return real(static_cast<uint32_t>(x) << 16); }
    static T write(float x) {
        const uint32_t b = bits(x), even = b + 0x7fff + ((b >> 16) & 1);
        return static_cast<T>((b & 0x7fffffff) > 0x7f800000 ? (b >> 16) | 0x40 : even >> 16);
    }
};

struct Half {
    using T = uint16_t;
    static float read(T x) {
        const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, rest = static_cast<uint32_t>(x & 0x7fff) << 13;
        const uint32_t value = bits(real(rest) * 0x1p112f);  // moves the exponent, denormals included
        return real(sign | value | ((x & 0x7c00) == 0x7c00 ? 0x7f800000 : 0));
    }
    static T write(float x) {
        const uint32_t b = bits(x), sign = (b >> 16) & 0x8000, size = b & 0x7fffffff;
        if (size > 0x7f800000) return static_cast<T>(sign | 0x7e00);
        if (size >= 0x477ff000) return static_cast<T>(sign | 0x7c00);
        if (size < 0x38800000) return static_cast<T>(sign | (bits(real(size) + 0.5f) - 0x3f000000));  // denormal
        return static_cast<T>(sign | ((size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13));
    }
};

// out [D] = a row turned by cos, sin [half], times `scale`; it may be where the row is.
template <class N>
void turn(const typename N::T* row, int64_t dim, int64_t half, const float* cos, const float* sin, float scale,
            float* out) {
    for (int64_t i = 0; i < half; i++) {
        const float a = N::read(row[i]), b = N::read(row[half + i]);
        out[i] = (a * cos[i] - b * sin[i]) * scale;
        out[half + i] = (b * cos[i] + a * sin[i]) * scale;
    }
    for (int64_t i = 2 * half; i < dim; i++) out[i] = N::read(row[i]) * scale;
}

}  // namespace numbers
}  // namespace longspan
