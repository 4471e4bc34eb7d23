// The products of one block and of the head, read from the objects that a run would build: the model over a
// measuring arena, with the adapters of the configured method.
#include <algorithm>

#include "kernels/cross_entropy.hpp"
#include "selftest/compute.hpp"
#include "train/model_state.hpp"

namespace switchyard::selftest {
namespace {

/// "model.layers.0.self_attn.q_proj.lora_A" -> "q_proj.lora_A", "lm_head.weight" -> "lm_head"
std::string short_name(std::string name) {
    if (name.ends_with(".weight")) name.resize(name.size() - std::string(".weight").size());
    for (const char* part : {"self_attn.", "mlp.", "model."})
        if (const std::size_t at = name.find(part); at != std::string::npos)
            name = name.substr(at + std::string(part).size());
    return name;
}

class Shapes {
  public:
    Shapes(std::int64_t tokens, double most_flop) : tokens_(tokens), most_flop_(most_flop) {}

    /// y (N, out) = x (N, in) W' and its gradients.
    void linear(const std::string& name, std::int64_t out, std::int64_t in, bool trained) {
        const std::int64_t n = tokens_for(out, in, tokens_);
        add({.name = name, .pass = "forward", .m = n, .n = out, .k = in, .transpose_b = true});
        add({.name = name, .pass = "input gradient", .m = n, .n = in, .k = out});
        if (!trained) return;
        add({.name = name,
             .pass = "weight gradient",
             .m = out,
             .n = in,
             .k = n,
             .transpose_a = true,
             .to_accumulate_type = true});
    }
    /// logits (V, n) = W x', as the loss is computed.
    void head(const std::string& name, std::int64_t vocab, std::int64_t hidden, std::int64_t chunk) {
        const std::int64_t n = tokens_for(vocab, hidden, std::min(tokens_, chunk));
        add({.name = name, .pass = "forward", .m = vocab, .n = n, .k = hidden, .transpose_b = true});
        add({.name = name, .pass = "input gradient", .m = n, .n = hidden, .k = vocab, .transpose_a = true});
        add({.name = name,
             .pass = "weight gradient",
             .m = vocab,
             .n = hidden,
             .k = n,
             .to_accumulate_type = true});
    }
    std::vector<ProductShape> take() { return std::move(found_); }

  private:
    std::int64_t tokens_for(std::int64_t out, std::int64_t in, std::int64_t most) const {
        const double fitting = most_flop_ / (2 * static_cast<double>(out) * static_cast<double>(in));
        if (fitting >= static_cast<double>(most)) return most;
        return std::min(most, std::max<std::int64_t>(16, static_cast<std::int64_t>(fitting) / 16 * 16));
    }
    void add(const ProductShape& shape) {
        for (ProductShape& known : found_)
            if (known.pass == shape.pass && known.same_work(shape)) {
                known.name += " " + shape.name;
                return;
            }
        found_.push_back(shape);
    }
    std::int64_t tokens_;
    double most_flop_;
    std::vector<ProductShape> found_;
};

}  // namespace

std::vector<ProductShape> product_shapes(const Setting& setting, double most_flop) {
    Arena arena;
    Traffic traffic;
    ModelState state(setting.config, setting.topology, arena, traffic);
    const std::int64_t tokens = state.context.tokens();
    Shapes shapes(tokens, most_flop);
    const std::vector<Linear*> linears = state.model.linears();
    const std::size_t of_block = linears.size() / static_cast<std::size_t>(setting.config.model.num_layers);
    for (std::size_t i = 0; i < of_block; ++i) {
        const Linear& linear = *linears[i];
        shapes.linear(short_name(linear.name()), linear.out().padded, linear.in().padded, !linear.frozen());
        if (!linear.adapter()) continue;
        for (const Parameter* p : linear.adapter()->parameters())
            if (p->role == ParameterRole::factor && p->value.shape().rank() == 2)
                shapes.linear(short_name(p->shard.name), p->value.dim(0), p->value.dim(1), true);
    }
    const std::int64_t vocab = state.model.vocabulary().padded;
    const auto row_bytes = vocab * static_cast<std::int64_t>(size_of(setting.dtype));
    const std::int64_t chunk = std::max<std::int64_t>(
        64, static_cast<std::int64_t>(kernels::logits_chunk_bytes()) / row_bytes / 64 * 64);
    shapes.head("lm_head", vocab, setting.config.model.hidden_size, chunk);
    return shapes.take();
}

}  // namespace switchyard::selftest
