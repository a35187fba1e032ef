// A step of a model for few rows, as a list of operations on buffers that stay where they are. Between two operations
// nothing but C++ runs, so threads that wait for the next one get it within a microsecond.
#pragma once

#include <functional>
#include <vector>

#include "linear_run.hpp"
#include "place.hpp"
#include "run.hpp"

namespace longspan {

// The pages that a sequence holds in some layers.
struct Pages {
    explicit Pages(size_t layers) : layers(layers) {}
    std::vector<std::vector<Segment>> layers;
};

// cos and sin of a step's rows, [T, half]; half 0: nothing turns.
struct Turn {
    int64_t half;
    const float *cos, *sin;
};

// What the rows of a step write and read in layers that hold the same pages of the text and turn alike.
struct Reading {
    struct Sequence {
        int64_t rows, first, base, begin, window;  // as in `Attention`
        Turn distances;
        const Pages* pages;
    };
    const int64_t *pages, *places;  // where keys go: [layers, lanes, T] and [T]
    Turn keys, queries;
    std::vector<Sequence> sequences;
};

// The same of layers where eviction decides what stays. Arrays of `kept` begin with the first layer, lanes of a layer
// after those of the one before.
struct Keeping {
    struct Sequence {
        Kept kept;  // but for queries, softcap, sinks, out and scores
        const float *cos, *sin;  // of its rows: [R, half], or [layers, lanes, R, half] where lanes are `apart`
        bool apart;

        Kept of(int64_t layer) const;
    };
    const int64_t *pages, *places;  // where keys go: [layers, lanes, T] each
    Turn keys;
    std::vector<Sequence> sequences;
};

// All of a step that is not in its rows. Layers without a reading or a keeping are somebody else's.
struct Held {
    int64_t lanes, page;
    bool narrow;
    char *keys, *values;  // pages that are written
    std::vector<Reading> readings;
    std::vector<Keeping> keepings;
    struct Place {
        int reading = -1, keeping = -1;
        int64_t index = 0;  // of the layer, in what it reads or keeps
    };
    std::vector<Place> layers;
};

// Attention of a layer: what the model says of it. Of queries, keys and values channel d of head h of row t lies at
// t·row + h·head + d.
struct Attending {
    int64_t layer, rows, heads, dim;
    const char *queries, *keys, *values;
    int64_t query_row, query_head, key_row, key_head, value_row, value_head;
    float scale, softcap;  // softcap 0: none
    const float* sinks;    // [H] or null
    char* out;             // [T, H, D]
};

class Tape {
public:
    Tape(const Level* level, Kind kind) : level_(level), kind_(kind) {}
    Tape(const Tape&) = delete;

    // out [n, bytes] = rows of a table, as ids say
    void rows(const char* table, int64_t bytes, const int64_t* ids, int64_t n, char* out);
    void norm(const Norm& norm);
    void linear(const Linear* linear, int64_t rows, const char* x, std::vector<char*> out);
    // sums, and products with a number, of n numbers
    void add(int64_t n, const char* a, const char* b, char* out);
    void scale(int64_t n, const char* a, float by, char* out);
    // n numbers in float32
    void widen(int64_t n, const char* a, float* out);
    // whether none of n numbers is NaN or Inf
    void finite(int64_t n, const char* a, bool* out);
    void attend(const Attending& attending);
    // Somebody else goes on.
    void stop();

    // From operation `at` on: the number of the one at which somebody else goes on, or −1 at the end.
    int64_t run(int64_t at, int threads, const Held* held) const;

private:
    // false: not done
    using Op = std::function<bool(int threads, const Held* held)>;
    void put(int threads, const Attending& a, const Held& held, const Turn& keys, const Turn& queries,
             const int64_t* pages, const int64_t* places, int64_t place_lane, float* out) const;
    void read(int threads, const Attending& a, const Held& held, const Reading& reading, int64_t index, float* queries,
              float* sums) const;
    void keep(int threads, const Attending& a, const Held& held, const Keeping& keeping, int64_t index, float* queries,
              float* sums) const;
    const Level* level_;
    Kind kind_;
    std::vector<Op> ops_;
};

}  // namespace longspan
