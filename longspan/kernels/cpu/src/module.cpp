// The Python face. Addresses come as integers: what they point to was checked, and is held, by the caller in Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "linear_run.hpp"
#include "place.hpp"
#include "prompt.hpp"
#include "run.hpp"
#include "tape.hpp"

namespace nb = nanobind;
using namespace longspan;

namespace {

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

const Level* level(size_t index) {
    static const std::vector<const Level*> found = available();
    if (index >= found.size()) throw std::out_of_range("no such instruction set on this processor");
    return found[index];
}

Segment segment(int kind, int64_t start, int64_t pages, uintptr_t ids, uintptr_t keys, uintptr_t values,
                uintptr_t key_min, uintptr_t key_step, uintptr_t value_min, uintptr_t value_step, int64_t groups) {
    return {static_cast<Kind>(kind), pages, at<const int64_t>(ids), at<const char>(keys), at<const char>(values),
            at<const uint16_t>(key_min), at<const uint16_t>(key_step), at<const uint16_t>(value_min),
            at<const uint16_t>(value_step), groups, start};
}

// The format of sealed pages of lanes, as `operands` gives it; empty: there are none.
Segment stored(const std::vector<int64_t>& coded) {
    Segment made{};
    made.groups = 1;
    if (coded.empty()) return made;
    auto place = [&](size_t i) { return static_cast<uintptr_t>(coded.at(i)); };
    return segment(static_cast<int>(coded.at(0)), 0, 0, 0, place(4), place(5), place(6), place(7), place(8), place(9),
                   coded.at(10));
}

template <class T>
void add(T& self, int kind, int64_t start, int64_t pages, uintptr_t ids, uintptr_t keys, uintptr_t values,
         uintptr_t key_min, uintptr_t key_step, uintptr_t value_min, uintptr_t value_step, int64_t groups) {
    self.add(segment(kind, start, pages, ids, keys, values, key_min, key_step, value_min, value_step, groups));
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("levels", [] {
        std::vector<std::string> names;
        for (const Level* level : available()) names.emplace_back(level->name);
        return names;
    });
    m.def("pairs", pairs);
    nb::class_<Decode>(m, "Decode")
        .def("__init__", [](Decode* self, size_t index, int threads) { new (self) Decode(level(index), threads); })
        .def("work",
             [](Decode& self, uintptr_t queries, int64_t rows, int64_t heads, int64_t lanes, int64_t dim, int64_t page,
                int64_t first, int64_t base, int64_t begin, int64_t window, int64_t half, uintptr_t cos, uintptr_t sin,
                float softcap, bool narrow, uintptr_t sinks, uintptr_t out) {
                 self.work({at<const float>(queries), rows, heads, lanes, dim, page, half, first, base, begin, window,
                            at<const float>(cos), at<const float>(sin), softcap, narrow},
                           at<const float>(sinks), at<float>(out));
             })
        .def("add", add<Decode>)
        .def("read", &Decode::read, nb::call_guard<nb::gil_scoped_release>())
        .def("finish", &Decode::finish, nb::call_guard<nb::gil_scoped_release>());
    m.def("place", [](int threads, int dtype, int64_t rows, int64_t heads, int64_t lanes, int64_t dim, int64_t page,
                      int64_t half, int64_t query_half, uintptr_t queries, uintptr_t keys, uintptr_t values,
                      int64_t query_row, int64_t query_head, int64_t key_row, int64_t key_head, int64_t value_row,
                      int64_t value_head, uintptr_t key_cos, uintptr_t key_sin, uintptr_t query_cos,
                      uintptr_t query_sin, float scale, uintptr_t pages, uintptr_t places, int64_t place_lane,
                      uintptr_t page_keys, uintptr_t page_values, uintptr_t out) {
        place(threads, {dtype, rows, heads, lanes, dim, page, half, query_half, at<const char>(queries),
                        at<const char>(keys), at<const char>(values), query_row, query_head, key_row, key_head,
                        value_row, value_head, at<const float>(key_cos), at<const float>(key_sin),
                        at<const float>(query_cos), at<const float>(query_sin), scale, at<const int64_t>(pages),
                        at<const int64_t>(places), place_lane, at<char>(page_keys), at<char>(page_values), at<float>(out)});
    });
    nb::class_<Prefill>(m, "Prefill")
        .def("__init__",
             [](Prefill* self, size_t index, int threads, uintptr_t queries, int64_t rows, int64_t heads, int64_t lanes,
                int64_t dim, int64_t page, int64_t first, int64_t base, int64_t begin, int64_t window, int64_t half,
                uintptr_t cos, uintptr_t sin, float softcap, bool narrow, bool pairs, uintptr_t sinks, uintptr_t chosen,
                int64_t chosen_rows, int64_t pages, uintptr_t out) {
                 new (self) Prefill(level(index), threads,
                                    {at<const float>(queries), rows, heads, lanes, dim, page, half, first, base, begin,
                                     window, at<const float>(cos), at<const float>(sin), softcap, narrow, pairs,
                                     at<const float>(sinks), at<const uint8_t>(chosen), chosen_rows, pages,
                                     at<float>(out), nullptr, nullptr});
             })
        .def("add", add<Prefill>)
        .def("read", &Prefill::read, nb::call_guard<nb::gil_scoped_release>())
        .def("finish", &Prefill::finish, nb::call_guard<nb::gil_scoped_release>());
    nb::class_<Probe>(m, "Probe")
        .def("__init__",
             [](Probe* self, uintptr_t queries, int64_t rows, int64_t heads, int64_t lanes, int64_t dim, int64_t page,
                int64_t first, int64_t base, int64_t begin, int64_t half, uintptr_t cos, uintptr_t sin, float softcap,
                bool narrow, bool pairs, int64_t pages, int64_t stride, int64_t block, uintptr_t tops, uintptr_t sums) {
                 new (self) Probe{{at<const float>(queries), rows, heads, lanes, dim, page, half, first, base, begin, 0,
                                   at<const float>(cos), at<const float>(sin), softcap, narrow, pairs, nullptr, nullptr, 1,
                                   pages, nullptr, nullptr, nullptr},
                                  stride, block, at<float>(tops), at<float>(sums)};
             })
        .def("read",
             [](const Probe& self, size_t index, int threads, int kind, int64_t start, int64_t pages, uintptr_t ids,
                uintptr_t keys, uintptr_t values, uintptr_t key_min, uintptr_t key_step, uintptr_t value_min,
                uintptr_t value_step, int64_t groups) {
                 nb::gil_scoped_release released;
                 estimate(level(index), threads, self,
                          segment(kind, start, pages, ids, keys, values, key_min, key_step, value_min, value_step,
                                  groups));
             })
        .def("shares", [](const Probe& self, size_t index, int threads, uintptr_t out) {
            nb::gil_scoped_release released;
            shares(level(index), threads, self, at<float>(out));
        });
    m.def(
        "sketch",
        [](size_t index, int threads, uintptr_t queries, int64_t lanes, int64_t rows, int64_t pages, int64_t dim,
           int64_t slots, uintptr_t codes, uintptr_t low, uintptr_t step, int64_t codes_lane, int64_t codes_page,
           int64_t low_lane, int64_t low_page, int64_t step_lane, int64_t step_page, uintptr_t out) {
            score(level(index), threads,
                  {at<const float>(queries), lanes, rows, pages, dim, slots, at<const char>(codes), at<const char>(low),
                   at<const char>(step), codes_lane, codes_page, low_lane, low_page, step_lane, step_page,
                   at<float>(out)});
        },
        nb::call_guard<nb::gil_scoped_release>());
    m.def("slotted", [](size_t index, int threads, uintptr_t queries, uintptr_t rows_at, int64_t rows, int64_t heads,
                        int64_t lanes, int64_t dim, int64_t slots, uintptr_t keys, int64_t key_lane, int64_t key_slot,
                        int kind, uintptr_t values, int64_t value_lane, int64_t value_slot, uintptr_t late,
                        uintptr_t early, uintptr_t bias, float window, float softcap, uintptr_t learned, uintptr_t out,
                        uintptr_t mass, uintptr_t recent, int64_t since, uintptr_t used, int64_t page, float share) {
        nb::gil_scoped_release released;
        attend(level(index), threads,
               Slotted{at<const float>(queries), at<const float>(rows_at), rows, heads, lanes, dim, slots,
                       at<const float>(keys), key_lane, key_slot, static_cast<Kind>(kind), at<const char>(values),
                       value_lane, value_slot, at<const float>(late), at<const float>(early), at<const float>(bias),
                       window, softcap, at<const float>(learned), at<float>(out), at<float>(mass), at<float>(recent),
                       since, at<int64_t>(used), page, share, 1, nullptr, nullptr, nullptr, nullptr});
    });
    m.def("seal", [](size_t index, int threads, int kind, int64_t pages, int64_t rows, int64_t columns, int64_t groups,
                     int bits, uintptr_t x, uintptr_t codes, uintptr_t low, uintptr_t step) {
        nb::gil_scoped_release released;
        return seal(level(index), threads,
                    {static_cast<Kind>(kind), pages, rows, columns, groups, bits, at<const char>(x), at<uint8_t>(codes),
                     at<uint16_t>(low), at<uint16_t>(step)});
    });
    m.def("kept", [](size_t index, int threads, uintptr_t queries, uintptr_t rows_at, int64_t rows, int64_t heads,
                     int64_t lanes, int64_t dim, int64_t page, int64_t slots, int64_t columns, uintptr_t table,
                     uintptr_t sealed, uintptr_t counts, int kind, uintptr_t keys, uintptr_t values,
                     const std::vector<int64_t>& coded, uintptr_t positions, uintptr_t weights, int64_t room,
                     int64_t half, uintptr_t cos, uintptr_t sin, uintptr_t turns, int64_t window, int64_t sinks,
                     float softcap, uintptr_t learned, uintptr_t out, uintptr_t mass, uintptr_t recent, int64_t since,
                     uintptr_t used, float share, uintptr_t scores) {
        const Segment other = stored(coded);
        nb::gil_scoped_release released;
        attend(level(index), threads,
               {at<const float>(queries), at<const int64_t>(rows_at), rows, heads, lanes, dim, page, slots, columns,
                at<const int64_t>(table), at<const int64_t>(sealed), at<const int64_t>(counts), static_cast<Kind>(kind),
                at<const char>(keys), at<const char>(values), other, at<const int64_t>(positions),
                at<const float>(weights), room, half, at<const float>(cos), at<const float>(sin), slots,
                at<const int64_t>(turns), window, sinks, softcap, at<const float>(learned), at<float>(out),
                at<float>(mass), at<float>(recent), since, at<int64_t>(used), share, at<float>(scores)});
    });
    nb::class_<Linear>(m, "Linear")
        .def("__init__",
             [](Linear* self, size_t index, int kind, int stored, int64_t columns, int act) {
                 new (self) Linear(level(index), static_cast<Kind>(kind), static_cast<Kind>(stored), columns,
                                   static_cast<Act>(act));
             })
        .def("add",
             [](Linear& self, uintptr_t weight, uintptr_t bias, int64_t rows) {
                 self.add({at<const char>(weight), at<const char>(bias), rows});
             })
        .def_static("widens", [](int kind) { return Linear::widens(static_cast<Kind>(kind)); })
        .def("in_bytes", &Linear::in_bytes)
        .def("pays", &Linear::pays)
        .def("open",
             [](const Linear& self, int threads, int64_t from, int64_t to, uintptr_t out) {
                 nb::gil_scoped_release released;
                 self.open(threads, from, to, at<char>(out));
             })
        .def("run", [](const Linear& self, int threads, int64_t rows, uintptr_t x, nb::args outs) {
            char* out[8];
            const size_t many = outs.size();
            if (many != self.results() || many > 8) throw std::invalid_argument("one address for each result");
            for (size_t i = 0; i < many; i++) out[i] = at<char>(nb::cast<uintptr_t>(outs[i]));
            nb::gil_scoped_release released;
            self.run(threads, rows, at<const char>(x), out);
        });
    nb::class_<Pages>(m, "Pages")
        .def(nb::init<size_t>())
        .def("add", [](Pages& self, size_t layer, int kind, int64_t start, int64_t pages, uintptr_t ids, uintptr_t keys,
                       uintptr_t values, uintptr_t key_min, uintptr_t key_step, uintptr_t value_min,
                       uintptr_t value_step, int64_t groups) {
            self.layers.at(layer).push_back(
                segment(kind, start, pages, ids, keys, values, key_min, key_step, value_min, value_step, groups));
        });
    nb::class_<Held>(m, "Held")
        .def("__init__",
             [](Held* self, size_t layers, int64_t lanes, int64_t page, bool narrow, uintptr_t keys, uintptr_t values) {
                 new (self) Held{lanes, page, narrow, at<char>(keys), at<char>(values), {}, {},
                                 std::vector<Held::Place>(layers)};
             })
        .def("keeping",
             [](Held& self, const std::vector<int64_t>& layers, uintptr_t pages, uintptr_t places, int64_t key_half,
                uintptr_t key_cos, uintptr_t key_sin) {
                 for (size_t i = 0; i < layers.size(); i++)
                     if (layers[i] >= 0)
                         self.layers.at(static_cast<size_t>(layers[i])) = {-1, static_cast<int>(self.keepings.size()),
                                                                            static_cast<int64_t>(i)};
                 self.keepings.push_back({at<const int64_t>(pages), at<const int64_t>(places),
                                          {key_half, at<const float>(key_cos), at<const float>(key_sin)},
                                          {}});
             })
        .def("lanes", [](Held& self, uintptr_t rows_at, int64_t rows, int64_t heads, int64_t dim, int64_t slots,
                         int64_t columns, uintptr_t table, uintptr_t sealed, uintptr_t counts, int kind,
                         const std::vector<int64_t>& coded, uintptr_t positions, uintptr_t weights, int64_t room,
                         int64_t half, uintptr_t cos, uintptr_t sin, uintptr_t turns, int64_t window, int64_t sinks,
                         uintptr_t mass, uintptr_t recent, int64_t since, uintptr_t used, float share,
                         uintptr_t query_cos, uintptr_t query_sin, bool apart) {
            self.keepings.back().sequences.push_back(
                {{nullptr, at<const int64_t>(rows_at), rows, heads, self.lanes, dim, self.page, slots, columns,
                  at<const int64_t>(table), at<const int64_t>(sealed), at<const int64_t>(counts),
                  static_cast<Kind>(kind), self.keys, self.values, stored(coded), at<const int64_t>(positions),
                  at<const float>(weights), room, half, at<const float>(cos), at<const float>(sin), room,
                  at<const int64_t>(turns), window, sinks, 0.0f, nullptr, nullptr, at<float>(mass), at<float>(recent),
                  since, at<int64_t>(used), share, nullptr},
                 at<const float>(query_cos), at<const float>(query_sin), apart});
        })
        .def("reading",
             [](Held& self, const std::vector<int64_t>& layers, uintptr_t pages, uintptr_t places, int64_t key_half,
                uintptr_t key_cos, uintptr_t key_sin, int64_t query_half, uintptr_t query_cos, uintptr_t query_sin) {
                 for (size_t i = 0; i < layers.size(); i++)
                     if (layers[i] >= 0)
                         self.layers.at(static_cast<size_t>(layers[i])) = {static_cast<int>(self.readings.size()), -1,
                                                                            static_cast<int64_t>(i)};
                 self.readings.push_back({at<const int64_t>(pages), at<const int64_t>(places),
                                          {key_half, at<const float>(key_cos), at<const float>(key_sin)},
                                          {query_half, at<const float>(query_cos), at<const float>(query_sin)},
                                          {}});
             })
        .def("sequence", [](Held& self, const Pages& pages, int64_t rows, int64_t first, int64_t base, int64_t begin,
                            int64_t window, int64_t half, uintptr_t cos, uintptr_t sin) {
            self.readings.back().sequences.push_back(
                {rows, first, base, begin, window, {half, at<const float>(cos), at<const float>(sin)}, &pages});
        });
    nb::class_<Tape>(m, "Tape")
        .def("__init__", [](Tape* self, size_t index, int kind) { new (self) Tape(level(index), static_cast<Kind>(kind)); })
        .def("rows",
             [](Tape& self, uintptr_t table, int64_t bytes, uintptr_t ids, int64_t n, uintptr_t out) {
                 self.rows(at<const char>(table), bytes, at<const int64_t>(ids), n, at<char>(out));
             })
        .def("norm",
             [](Tape& self, int kind, int64_t rows, int64_t columns, uintptr_t x, uintptr_t weight, uintptr_t out,
                float eps) {
                 self.norm({static_cast<Kind>(kind), rows, columns, at<const char>(x), at<const char>(weight), nullptr, nullptr,
                            at<char>(out), eps, false});
             })
        .def("linear",
             [](Tape& self, const Linear& linear, int64_t rows, uintptr_t x, const std::vector<uintptr_t>& outs) {
                 if (outs.size() != linear.results()) throw std::invalid_argument("one address for each result");
                 std::vector<char*> out;
                 for (uintptr_t address : outs) out.push_back(at<char>(address));
                 self.linear(&linear, rows, at<const char>(x), std::move(out));
             })
        .def("add",
             [](Tape& self, int64_t n, uintptr_t a, uintptr_t b, uintptr_t out) {
                 self.add(n, at<const char>(a), at<const char>(b), at<char>(out));
             })
        .def("scale",
             [](Tape& self, int64_t n, uintptr_t a, float by, uintptr_t out) {
                 self.scale(n, at<const char>(a), by, at<char>(out));
             })
        .def("widen",
             [](Tape& self, int64_t n, uintptr_t a, uintptr_t out) { self.widen(n, at<const char>(a), at<float>(out)); })
        .def("finite",
             [](Tape& self, int64_t n, uintptr_t a, uintptr_t out) { self.finite(n, at<const char>(a), at<bool>(out)); })
        .def("attend",
             [](Tape& self, int64_t layer, int64_t rows, int64_t heads, int64_t dim, uintptr_t queries, uintptr_t keys,
                uintptr_t values, int64_t query_row, int64_t query_head, int64_t key_row, int64_t key_head,
                int64_t value_row, int64_t value_head, float scale, float softcap, uintptr_t sinks, uintptr_t out) {
                 self.attend({layer, rows, heads, dim, at<const char>(queries), at<const char>(keys),
                              at<const char>(values), query_row, query_head, key_row, key_head, value_row, value_head,
                              scale, softcap, at<const float>(sinks), at<char>(out)});
             })
        .def("stop", &Tape::stop)
        .def("run", [](const Tape& self, int64_t at, int threads, const Held* held) {
            nb::gil_scoped_release released;
            return self.run(at, threads, held);
        }, nb::arg("at"), nb::arg("threads"), nb::arg("held").none());
    m.def("rms_norm", [](size_t index, int threads, int kind, int64_t rows, int64_t columns, uintptr_t x,
                         uintptr_t weight, uintptr_t residual, uintptr_t sum, uintptr_t out, float eps, bool plus_one) {
        nb::gil_scoped_release released;
        rms_norm(level(index), threads,
                 {static_cast<Kind>(kind), rows, columns, at<const char>(x), at<const char>(weight),
                  at<const char>(residual), at<char>(sum), at<char>(out), eps, plus_one});
    });
    m.def("narrow", [](size_t index, int threads, int kind, int64_t n, uintptr_t from, uintptr_t to) {
        nb::gil_scoped_release released;
        narrow(level(index), threads, static_cast<Kind>(kind), n, at<const float>(from), at<char>(to));
    });
}
