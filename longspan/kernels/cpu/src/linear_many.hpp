// Many rows of activations times matrices of whatever numbers, multiplied and summed in float32: a tile of a matrix is
// widened, turned so that its rows lie side by side and kept in the nearest cache while all rows of a task run over it.
#pragma once

namespace {

// Arrays side by side, each from a new cache line on; without memory only what they take is counted.
struct Shelf {
    float* memory;
    int64_t used = 0;

    explicit Shelf(float* floats) : memory(floats) {
        if (memory) memory += (16 - reinterpret_cast<uintptr_t>(memory) / sizeof(float) % 16) % 16;
    }
    float* take(int64_t n) {
        float* place = memory ? memory + used : nullptr;
        used += (n + 15) / 16 * 16;
        return place;
    }
};

namespace many_rows {

using few_rows::bytes_of, few_rows::padded, few_rows::wide;

constexpr int64_t TILE = Activations::SPAN;      // rows of a matrix
constexpr int64_t STEP = V::W == 16 ? 128 : 64;  // channels of a tile
constexpr int64_t COLUMNS = V::BLOCK * V::W;     // rows of a matrix whose sums are in registers at a time

// A vector of a row from channel k on, zeros past the last channel.
template <class L>
struct Numbers {
    static int64_t stride(int64_t columns) { return L::bytes(columns); }
    static int64_t bytes(int64_t columns) { return L::bytes(columns); }  // of them, as far as they are side by side
    static V::F read(const char* row, int64_t k, int64_t columns) {
        V::F x;
        if (k + V::W <= columns) {
            L::template read<1>(row, k, &x);
        } else {
            char rest[4 * V::W] = {};
            __builtin_memcpy(rest, row + L::bytes(k), static_cast<size_t>(L::bytes(columns - k)));
            L::template read<1>(rest, 0, &x);
        }
        return x;
    }
};

template <int BITS>
struct Opened {
    using Codes = few_rows::Codes<BITS>;
    static int64_t stride(int64_t columns) { return Codes::stride(columns); }
    static int64_t bytes(int64_t columns) { return columns / Codes::GROUP * Codes::BYTES; }
    static V::F read(const char* row, int64_t k, int64_t columns) {  // past the last channel as the codes say
        const int64_t group = k / Codes::GROUP, at = k % Codes::GROUP, half = Codes::GROUP / 2;
        const auto* codes = reinterpret_cast<const uint8_t*>(row + group * Codes::BYTES);
        const float scale = wide(Kind::bf16, row + padded(columns) / Codes::GROUP * Codes::BYTES, group);
        V::F code;
        if constexpr (BITS == 8) {
            code = V::u8(codes + at);
        } else {
            V::F low, high;
            V::nibbles(codes + at % half, low, high);
            code = at < half ? low : high;
        }
        return V::fma(code, V::set(scale), V::set(scale * -(1 << (BITS - 1))));
    }
};

template <class Use>
void with(Kind kind, Use use) {
    switch (kind) {
        case Kind::f32: return use(Numbers<Float>());
        case Kind::bf16: return use(Numbers<Half<true>>());
        case Kind::f16: return use(Numbers<Half<false>>());
        case Kind::int8: return use(Opened<8>());
        case Kind::int4: return use(Opened<4>());
    }
}

// A vector of numbers; kinds of numbers alone.
inline V::F vector(Kind kind, const char* p) {
    V::F x;
    if (kind == Kind::f32)
        Float::read<1>(p, 0, &x);
    else if (kind == Kind::bf16)
        Half<true>::read<1>(p, 0, &x);
    else
        Half<false>::read<1>(p, 0, &x);
    return x;
}

// x[i][j] becomes x[j][i]
inline void transpose(V::F (&x)[V::W]) {
    for (int stage = 1; stage < V::W; stage *= 2) {
        V::F y[V::W];
        for (int i = 0; i < V::W / 2; i++) V::zip(x[i], x[i + V::W / 2], y[2 * i], y[2 * i + 1]);
        for (int i = 0; i < V::W; i++) x[i] = y[i];
    }
}

// Rows from…to of a matrix and channels k…end, in whole vectors, as out [end − k, TILE].
template <class R>
void lay(const Activations& given, const char* weight, int64_t from, int64_t to, int64_t k, int64_t end, float* out) {
    const int64_t stride = R::stride(given.columns);
    for (int64_t n = 0; n < TILE; n += V::W)
        for (int64_t at = k; at < end; at += V::W) {
            V::F x[V::W];
            for (int64_t j = 0; j < V::W; j++) {
                const int64_t row = from + n + j;
                x[j] = row < to ? R::read(weight + row * stride, at, given.columns) : V::set(0.0f);
            }
            transpose(x);
            for (int64_t j = 0; j < V::W; j++) V::store(out + (at - k + j) * TILE + n, x[j]);
        }
}

// What `lay` will read next.
template <class R>
void fetch(const Activations& given, const char* weight, int64_t from, int64_t to, int64_t k) {
    const char* at = weight + from * R::stride(given.columns) + R::bytes(k);
    for (int64_t row = from; row < to; row++, at += R::stride(given.columns))
        for (int64_t line = 0; line < R::bytes(STEP); line += 64) __builtin_prefetch(at + line);
}

}  // namespace many_rows
}  // namespace

#include "linear_bytes.hpp"

namespace {
namespace many_rows {

struct Panels {
    float *panel, *tile, *sums[2];
    int64_t size;

    Panels(int64_t rows, bool gated, float* memory) {
        Shelf shelf(memory);
        const int64_t many = rows + (V::ROWS > byte_rows::ROWS ? V::ROWS : byte_rows::ROWS) - 1;
        panel = shelf.take(V::ROWS * STEP);
        tile = shelf.take(STEP * TILE + byte_rows::STEP / byte_rows::GROUP * TILE);
        sums[0] = shelf.take(many * TILE);
        sums[1] = gated ? shelf.take(many * TILE) : nullptr;
        size = shelf.used + 16;
    }
};

size_t scratch(int64_t rows, bool gated) { return static_cast<size_t>(Panels(rows, gated, nullptr).size); }

// sums [M, TILE] of activations first…last and rows from…to of a matrix
inline void product_of(const Activations& given, const Matrix& matrix, int64_t from, int64_t to, int64_t first,
                       int64_t last, const Panels& p, float* sums) {
    const int64_t row = given.columns * bytes_of(given.kind);
    if (given.packed) byte_rows::product_of(given, matrix, from, to, first, last, p.tile, sums);
    for (int64_t k = 0; k < given.columns && !given.packed; k += STEP) {
        const int64_t left = given.columns - k, steps = left < STEP ? (left + V::W - 1) / V::W * V::W : STEP;
        with(given.stored, [&](auto read) {
            lay<decltype(read)>(given, matrix.weight, from, to, k, k + steps, p.tile);
            if (left > STEP) fetch<decltype(read)>(given, matrix.weight, from, to, k + STEP);
        });
        for (int64_t m = first; m < last; m += V::ROWS) {
            with(given.kind, [&](auto read) {
                for (int64_t j = 0; j < V::ROWS; j++)
                    for (int64_t i = 0; i < steps; i += V::W)
                        V::store(p.panel + j * STEP + i, m + j < last
                                                             ? read.read(given.x + (m + j) * row, k + i, given.columns)
                                                             : V::set(0.0f));
            });
            float* out = sums + (m - first) * TILE;
            for (int64_t n = 0; n < TILE; n += COLUMNS)
                if (k == 0)
                    product<Exact, V::BLOCK, false>(p.panel, STEP, p.tile + n, TILE, steps, out + n, TILE);
                else
                    product<Exact, V::BLOCK, true>(p.panel, STEP, p.tile + n, TILE, steps, out + n, TILE);
        }
    }
    if (matrix.bias)
        for (int64_t n = from; n < to; n++) {
            const float bias = wide(given.kind, matrix.bias, n);
            for (int64_t m = 0; m < last - first; m++) sums[m * TILE + n - from] += bias;
        }
}

// Rows from…to, at most TILE, of the matrix, and activations first…last; with a gate act(gate) times them. out [T, N].
void linear(const Activations& given, const Matrix* gate, Act how, const Matrix& matrix, int64_t from, int64_t to,
            int64_t first, int64_t last, char* out, float* memory) {
    const Panels p(last - first, gate, memory);
    product_of(given, matrix, from, to, first, last, p, p.sums[0]);
    if (gate) product_of(given, *gate, from, to, first, last, p, p.sums[1]);
    for (int64_t m = first; m < last; m++) {
        float* row = p.sums[0] + (m - first) * TILE;
        if (gate) {
            float* gates = p.sums[1] + (m - first) * TILE;
            few_rows::act(how, gates, row, TILE);
            row = gates;
        }
        few_rows::narrow(given.kind, row, out + (m * matrix.rows + from) * bytes_of(given.kind), to - from);
    }
}

}  // namespace many_rows
}  // namespace
