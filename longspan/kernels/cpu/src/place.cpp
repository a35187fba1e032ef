#include "place.hpp"

#include <algorithm>
#include <cstring>

#include "numbers.hpp"
#include "pool.hpp"

namespace longspan {

namespace {

constexpr int64_t ROWS = 64;  // rows of a task

using namespace numbers;

template <class N>
void place_rows(const Place& w, int64_t from, int64_t to, float* scratch) {
    using T = typename N::T;
    const T *queries = reinterpret_cast<const T*>(w.queries), *keys = reinterpret_cast<const T*>(w.keys),
            *values = reinterpret_cast<const T*>(w.values);
    T *page_keys = reinterpret_cast<T*>(w.page_keys), *page_values = reinterpret_cast<T*>(w.page_values);
    for (int64_t t = from; t < to; t++)
        for (int64_t h = 0; h < w.heads; h++)
            turn<N>(queries + t * w.query_row + h * w.query_head, w.dim, w.query_half, w.query_cos + t * w.query_half,
                      w.query_sin + t * w.query_half, w.scale, w.queries_out + (t * w.heads + h) * w.dim);
    const int64_t size = w.page * w.dim;
    for (int64_t g = 0; g < w.lanes; g++) {
        const int64_t *pages = w.pages + g * w.rows, *places = w.places + g * w.place_lane;
        for (int64_t t = from; t < to;) {
            int64_t n = 1;  // neighbours in a page
            while (t + n < to && pages[t + n] == pages[t] && places[t + n] == places[t] + n) n++;
            T* column = page_keys + pages[t] * size + places[t];
            for (int64_t i = 0; i < n; i++)
                turn<N>(keys + (t + i) * w.key_row + g * w.key_head, w.dim, w.half, w.key_cos + (t + i) * w.half,
                          w.key_sin + (t + i) * w.half, 1.0f, scratch + i * w.dim);
            for (int64_t d = 0; d < w.dim; d++)
                for (int64_t i = 0; i < n; i++) column[d * w.page + i] = N::write(scratch[i * w.dim + d]);
            T* row = page_values + pages[t] * size + places[t] * w.dim;
            for (int64_t i = 0; i < n; i++)
                std::memcpy(row + i * w.dim, values + (t + i) * w.value_row + g * w.value_head,
                            sizeof(T) * static_cast<size_t>(w.dim));
            t += n;
        }
    }
}

}  // namespace

void place(int threads, const Place& w) {
    const int64_t tasks = (w.rows + ROWS - 1) / ROWS;
    parallel(threads, tasks, static_cast<size_t>(ROWS * w.dim), [&](int64_t i, float* scratch) {
        const int64_t from = i * ROWS, to = std::min(from + ROWS, w.rows);
        switch (w.dtype) {
            case 0: place_rows<Float>(w, from, to, scratch); break;
            case 1: place_rows<Brain>(w, from, to, scratch); break;
            default: place_rows<Half>(w, from, to, scratch);
        }
    });
}

}  // namespace longspan
