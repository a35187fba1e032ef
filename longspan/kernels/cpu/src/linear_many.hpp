// Many rows of activations times matrices of whatever numbers, multiplied and summed in float32: a tile of a matrix is
// widened, turned so that its rows lie side by side and kept in the nearest cache while all rows of a task run over it.
#pragma once

namespace {
namespace many_rows {

constexpr int64_t TILE = Activations::SPAN;      // rows of a matrix
constexpr int64_t STEP = V::W == 16 ? 128 : 64;  // channels of a tile
constexpr int64_t COLUMNS = V::BLOCK * V::W;     // rows of a matrix whose sums are in registers at a time

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
inline void widened(const Activations& given, const Matrix& matrix, int64_t from, int64_t to, int64_t first,
                    int64_t last, const Panels& p, float* sums) {
    const int64_t row = given.columns * bytes_of(given.kind);
    for (int64_t k = 0; k < given.columns; k += STEP) {
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
}

// The same with biases, of numbers or of bytes.
inline void product_of(const Activations& given, const Matrix& matrix, int64_t from, int64_t to, int64_t first,
                       int64_t last, const Panels& p, float* sums) {
    if (given.packed)
        byte_rows::product_of(given, matrix, from, to, first, last, p.tile, sums);
    else
        widened(given, matrix, from, to, first, last, p, sums);
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
