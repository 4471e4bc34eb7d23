// A run of a method on one process, with matrices of tests/reference (Matrix) beside dense embedding, head
// and norms, whose gradients come from the dense model at the effective weights. Compared with the
// whole state of a run on any layout. Matrix: w; effective(); set_gradients(G of the effective weight);
// parts(); before_update(), if it has one; after_update(lr); derived(). Or, without parts that AdamW trains:
// gradient, whose norm counts; move(clip, lr, decay); moment, or state(linear) by the names of a checkpoint.
#pragma once

#include <gtest/gtest.h>

#include "reference/switchlora.hpp"
#include "support/dense_model.hpp"
#include "support/reference_steps.hpp"
#include "support/whole_state.hpp"

namespace switchyard::testing {

template <class Matrix>
struct ReferenceRun {
    using Trained = reference::Trained;
    using Array = reference::Array;
    static constexpr bool moves_itself = requires(Matrix x) { x.move(1.0, 1.0, 0.0); };

    Config config;
    DenseModel model;
    std::map<std::string, Matrix> matrices;  // by <linear>.weight
    std::map<std::string, Trained> dense;
    double grad_norm = 0;

    /// make(name of the linear, m, n) gives a matrix; its w is drawn here, start() is called then.
    template <class Make>
    ReferenceRun(const Config& c, const Make& make) : config(c), model(c) {
        for (Parameter* p : model.parameters()) {
            const std::string& name = p->shard.name;
            const int rows = static_cast<int>(p->shard.rows), cols = static_cast<int>(p->shard.cols);
            const auto drawn = [&](int i) {
                return c.model.init_std * normal(stream_key(c.run.seed, name), i);
            };
            if (name.ends_with("_proj.weight")) {
                Matrix x = make(name.substr(0, name.size() - 7), rows, cols);
                for (int i = 0; i < rows * cols; ++i) x.w[i] = drawn(i);
                x.start();
                matrices.emplace(name, std::move(x));
                continue;
            }
            Trained& x = dense[name] = {rows, cols};
            for (int i = 0; i < rows * cols; ++i) x.numbers[i].value = cols == 1 ? 1 : drawn(i);
        }
    }

    /// At a constant rate.
    void step() {
        for (auto& [name, x] : matrices) model.set(name, x.effective());
        for (auto& [name, x] : dense) {
            Array values;
            for (const auto& number : x.numbers) values.push_back(number.value);
            model.set(name, values);
        }
        const auto& gradients = model.gradients();
        double sum = 0;
        const auto add_squares = [&](const Array& values) {
            for (double x : values) sum += x * x;
        };
        for (auto& [name, x] : matrices) {
            x.set_gradients(gradients.at(name));
            if constexpr (moves_itself) {
                add_squares(x.gradient);
            } else {
                for (const auto& part : x.parts()) add_squares(*part.gradient);
            }
        }
        for (auto& [name, x] : dense) add_squares(gradients.at(name));
        grad_norm = std::sqrt(sum);
        const OptimConfig& o = config.optim;
        const double clip = std::min(1.0, o.clip_norm / grad_norm);
        for (auto& [name, x] : matrices) {
            if constexpr (moves_itself) {
                x.move(clip, o.lr, o.weight_decay);
            } else {
                if constexpr (requires { x.before_update(); }) x.before_update();
                for (const auto& part : x.parts())
                    part.trained->update(*part.gradient, clip,
                                         {o.lr, o.beta1, o.beta2, part.eps > 0 ? part.eps : o.eps,
                                          part.decays ? o.weight_decay : 0},
                                         {});
                x.after_update(o.lr);
            }
        }
        for (auto& [name, x] : dense)
            x.update(gradients.at(name), clip,
                     {o.lr, o.beta1, o.beta2, o.eps, x.cols == 1 ? 0 : o.weight_decay}, {});
    }

    /// Trained values, moments and weights by the names of a checkpoint.
    WholeState whole() {
        WholeState all;
        for (auto& [name, x] : dense) put(all, name, x, false);
        for (auto& [name, x] : matrices) {
            const std::string linear = name.substr(0, name.size() - 7);
            all["/model/" + name] = x.w;
            if constexpr (requires { x.state(linear); }) {
                for (const auto& [path, values] : x.state(linear)) all[path] = values;
            } else if constexpr (moves_itself) {
                all["/optimizer/" + name + "/m"] = x.moment;
            } else {
                for (const auto& [suffix, values] : x.derived()) all["/model/" + linear + suffix] = values;
                for (const auto& part : x.parts())
                    put(all, linear + part.suffix, *part.trained, part.transposed);
            }
        }
        return all;
    }
    static void put(WholeState& all, const std::string& name, const Trained& x, bool transposed) {
        using reference::AdamWNumber;
        for (const auto& [path, member] : {std::pair{"/model/" + name, &AdamWNumber::value},
                                           {"/optimizer/" + name + "/m", &AdamWNumber::m},
                                           {"/optimizer/" + name + "/v", &AdamWNumber::v}}) {
            Array& values = all[path];
            values.resize(x.numbers.size());
            for (int i = 0; i < x.rows; ++i)
                for (int j = 0; j < x.cols; ++j)
                    values[transposed ? j * x.rows + i : i * x.cols + j] = x.numbers[i * x.cols + j].*member;
        }
    }
};

/// Expects |actual - expected| <= tolerance max |expected| of each dataset but step counters; returns the
/// largest ratio.
inline double expect_close(const WholeState& actual, const WholeState& expected, double tolerance) {
    double worst = 0;
    std::size_t compared = 0;
    for (const auto& [name, values] : actual) {
        if (name.ends_with("/step")) continue;
        const auto found = expected.find(name);
        if (found == expected.end() || found->second.size() != values.size()) {
            ADD_FAILURE() << name << " is not in the reference or has another size";
            continue;
        }
        ++compared;
        double largest = 0, error = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            largest = std::max(largest, std::fabs(found->second[i]));
            error = std::max(error, std::fabs(values[i] - found->second[i]));
        }
        if (largest > 0) worst = std::max(worst, error / largest);
        EXPECT_LE(error, tolerance * largest) << name;
    }
    EXPECT_EQ(compared, expected.size());
    return worst;
}

/// Gradient norms of up to `steps` steps and the state after them on every layout against the reference,
/// which rank 0 runs.
template <class Matrix, class Make>
void expect_reference(const Config& config, int steps, const Make& make, double tolerance) {
    steps = reference_steps(steps);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    WholeState expected;
    std::vector<double> norms;
    if (rank == 0) {
        ReferenceRun<Matrix> reference(config, make);
        for (int t = 0; t < steps; ++t) {
            reference.step();
            norms.push_back(reference.grad_norm);
        }
        expected = reference.whole();
        EXPECT_GT(*std::max_element(norms.begin(), norms.end()), config.optim.clip_norm)
            << "nothing is clipped";
    }
    for_each_layout_in_few_passes(config, [&](const Config& here, const Topology& topology) {
        TinyRun run(here, topology);
        for (int t = 0; t < steps; ++t) {
            const double norm = run.step().grad_norm;
            if (rank == 0) {
                EXPECT_NEAR(norm, norms[t], tolerance * norms[t]) << "step " << t;
            }
        }
        const WholeState state = whole_state(run.state());
        if (rank == 0)
            fmt::print("tp {} dp {}: largest difference {:.1e}\n", here.parallel.tp, topology.dp_size(),
                       expect_close(state, expected, tolerance));
    });
}

/// Four elements of `trained` of a matrix: the gradient (rows, padded columns) beside central differences of
/// fourth order of loss(), which is called with the element moved. kink_at_zero: elements near 0 are left
/// out.
template <class Loss>
void expect_differences(const std::string& name, const test::Values& gradient, reference::Trained& trained,
                        bool kink_at_zero, const Loss& loss) {
    const std::int64_t stride = static_cast<std::int64_t>(gradient.size()) / trained.rows;
    double largest = 0;
    for (double value : gradient) largest = std::max(largest, std::fabs(value));
    for (int i = 0; i < 4; ++i) {
        const int row = i * 7 % trained.rows, column = i * 5 % trained.cols;
        double& number = trained.value(row, column);
        const double value = number, step = 1e-3;
        if (kink_at_zero && std::fabs(value) < 3 * step) continue;
        const auto loss_at = [&](double shift) {
            number = value + shift * step;
            return loss();
        };
        const double near = loss_at(1) - loss_at(-1), far = loss_at(2) - loss_at(-2);
        number = value;
        EXPECT_NEAR(gradient[static_cast<std::size_t>(row * stride + column)], (8 * near - far) / (12 * step),
                    2e-9 * largest + 1e-12)
            << name << " " << row << ", " << column;
    }
}

}  // namespace switchyard::testing
