// Rank 0 makes the directory and writes the small files. Rank i mod P writes value file i and reads the
// checkpoint on its own.
#include "convert/export.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "comm/collectives.hpp"
#include "config/value_rule.hpp"
#include "convert/new_directory.hpp"
#include "core/error.hpp"
#include "core/output.hpp"
#include "core/units.hpp"
#include "inference/generation.hpp"
#include "io/files/files.hpp"
#include "io/files/strict_json.hpp"
#include "io/hugging_face/hugging_face.hpp"
#include "io/hugging_face/safetensors.hpp"
#include "io/hugging_face/stored_tokenizer_json.hpp"
#include "io/hugging_face/tokenizer_json.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/scaling.hpp"
#include "kernels/transfer.hpp"
#include "train/checkpoint_header.hpp"
#include "train/stored_linear.hpp"
#include "train/weight_reader.hpp"

namespace switchyard {
namespace {

using nlohmann::ordered_json;

/// A tensor to be written: the part of /model that it comes from, and its form in the file.
struct Item {
    Shard source;
    SafetensorsTensor target;
    bool factor = false;
    /// Of a gated product: the slots that are written, and their gates, by which B is multiplied.
    std::vector<std::int64_t> slots;
    std::vector<double> gates;
    bool rows_are_slots = false;  // of A; they are columns of B
    double base = 1;              // factor of a base weight
};

struct ValueFile {
    std::string name;
    std::vector<Item> items;
};

/// The linear that a weight belongs to.
std::string module_of(const Shard& weight) { return weight.name.substr(0, weight.name.rfind('.')); }

struct ExportedTokenizer {
    std::string bytes;                          // a SentencePiece model, or a tokenizer.json
    std::int32_t begin = -1, end = -1;          // tokens that documents begin and end with; -1: none
    bool begins_texts = false;                  // in training the first token of a text was first_token()
    TokenizerJson json;                         // made from a SentencePiece model
    std::optional<StoredTokenizerJson> stored;  // where the bytes are a tokenizer.json
    /// Documents without a begin token follow the end token of the document before.
    std::int32_t first_token() const { return begin >= 0 ? begin : end; }
};

class Exporter {
  public:
    Exporter(const Comm& world, const ExportRequest& request)
        : world_(world), request_(request), header_(read_header(world, request.checkpoint)) {
        agree_on(world_, [&] {
            config_ = stored_config(header_, request_.checkpoint, request_.settings);
            require_supported(config_, request_.adapters ? Use::export_adapters : Use::export_weights,
                              request_.checkpoint);
            reader_.emplace(Comm(), request_.checkpoint);
            find_tensors();
            if (world_.rank() == 0) read_tokenizer();
        });
    }

    void run() {
        NewDirectory directory(world_, request_.directory);
        const std::vector<ValueFile> base = plan_base(), adapter = plan_adapter();
        agree_on(world_, [&] {
            if (world_.rank() == 0) write_small_files(directory, base);
        });
        agree_on(world_, [&] {
            int turn = 0;
            for (const auto* files : {&base, &adapter})
                for (const ValueFile& file : *files)
                    if (turn++ % world_.size() == world_.rank()) write_values(directory, file);
        });
        agree_on(world_, [&] {
            if (world_.rank() == 0) directory.commit();
        });
        if (world_.rank() == 0) report(base.size());
    }

  private:
    void find_tensors();
    std::map<std::int64_t, double> read_open_slots(const std::string& module) const;
    void read_tokenizer();
    std::vector<ValueFile> plan_base() const;
    std::vector<ValueFile> plan_adapter() const;
    void write_small_files(const NewDirectory&, const std::vector<ValueFile>& base) const;
    void write_tokenizer(const NewDirectory&, const LlamaFacts&) const;
    void write_values(const NewDirectory&, const ValueFile&) const;
    void report(std::size_t num_files) const;
    std::string base_folder() const { return request_.adapters ? "base/" : ""; }

    const Comm& world_;
    const ExportRequest& request_;
    CheckpointHeader header_;
    Config config_;
    std::optional<CheckpointReader> reader_;  // each rank has its own
    std::vector<Shard> weights_;
    std::vector<AdapterModule> modules_;
    /// Slots whose gate is not zero, with it; at least one.
    using OpenSlots = std::map<std::int64_t, double>;
    std::map<std::string, OpenSlots> open_slots_;      // by module, of gated products
    std::map<std::string, double> base_factors_;       // by weight, of a base written apart from its product
    std::set<std::string> biased_;                     // modules with a bias
    std::optional<ExportedTokenizer> tokenizer_;  // on rank 0 only
};

/// Finds the weights that the model must have and the factors that the file has beside them; refuses anything
/// else.
void Exporter::find_tensors() {
    weights_ = whole_weights(config_.model);
    std::set<std::string> names;
    for (const Shard& weight : weights_) {
        names.insert(weight.name);
        const std::string module = module_of(weight);
        const StoredLinear stored = stored_linear(*reader_, module);
        if (stored.bias) biased_.insert(module);
        if (stored.alone()) continue;
        if (request_.adapters) base_factors_[weight.name] = stored.base;
        AdapterModule adapter{module, stored.low_rank, stored.scale, stored.with_magnitude()};
        if (stored.gated_product()) {
            open_slots_[module] = read_open_slots(module);
            adapter.low_rank = static_cast<std::int64_t>(open_slots_[module].size());
        }
        modules_.push_back(adapter);
        require(
            !request_.adapters || stored.plain_product() || stored.gated_product() ||
                stored.with_magnitude(),
            "checkpoint `{}` holds {} with more than a low-rank product beside it (a PEFT adapter of type "
            "LoRA has no place for that, and without it the model would compute something else); leave "
            "--adapters out: everything is merged then",
            request_.checkpoint, weight.name);
    }
    if (world_.rank() != 0) return;
    require_understood(*reader_, names);
    require(!request_.adapters || !modules_.empty(),
            "checkpoint `{}` has no low-rank factors (--adapters writes them apart); leave --adapters out",
            request_.checkpoint);
}

void Exporter::read_tokenizer() {
    if (!request_.tokenizer) return;
    const std::string& tokens = config_.data.tokens;
    require(exists_at(tokens),
            "token file `{}` is not there (the tokenizer is in it; checkpoint `{}` has only its "
            "fingerprint); give --data.tokens=FILE, or --no_tokenizer to leave the tokenizer out",
            tokens, request_.checkpoint);
    const TokenFile file = open_token_file(tokens);
    require(
        identity_of(file.info()).tokenizer == header_.data.tokenizer,
        "token file `{}` was made with a different tokenizer from that of checkpoint `{}` (its ids mean "
        "other words); give --data.tokens=FILE with the run's tokenizer, or --no_tokenizer to leave it out",
        tokens, request_.checkpoint);
    const TokenFileInfo& info = file.info();
    require(info.tokenizer_kind != TokenizerKind::none,
            "token file `{}` has a tokenizer of kind none (only its maker knows what the ids mean); give "
            "--no_tokenizer to leave it out",
            tokens);
    ExportedTokenizer& found = tokenizer_.emplace();
    found.bytes = info.tokenizer_model;
    found.begin = header_.data.begin_token.value_or(info.begin_token);
    found.end = header_.data.end_token.value_or(-1) < 0 ? info.end_token : *header_.data.end_token;
    require(std::max(found.begin, found.end) < info.vocab_size,
            "documents of checkpoint `{}` begin with token {} and end with {}, but `{}` has {} tokens (they "
            "do not belong together); give --data.tokens=FILE with the run's tokenizer",
            request_.checkpoint, found.begin, found.end, tokens, info.vocab_size);
    found.begins_texts = found.begin >= 0 || !config_.data.mask_documents;
    if (info.tokenizer_kind == TokenizerKind::hf_json) {
        found.stored.emplace(found.bytes, "tokenizer.json of " + tokens);
        return;
    }
    (void)tokenizer_of(file);  // throws where SentencePiece cannot load the model
    found.json = tokenizer_json(found.bytes, found.begins_texts ? found.first_token() : -1);
}

std::map<std::int64_t, double> Exporter::read_open_slots(const std::string& module) const {
    const std::string path = "/model/" + module + ".lora_gate";
    const Shape shape = reader_->shape(path);
    const Shard whole{path, shape, 0, 0, shape[0], 1, 0};
    std::vector<double> gates(static_cast<std::size_t>(shape[0]));
    if (reader_->stored_type(path) == DType::f64) {
        reader_->read(path, whole, HostBlock{gates.data(), DType::f64, shape});
    } else {
        std::vector<float> narrow(gates.size());
        reader_->read(path, whole, HostBlock{narrow.data(), DType::f32, shape});
        std::copy(narrow.begin(), narrow.end(), gates.begin());
    }
    std::map<std::int64_t, double> open;
    for (std::int64_t slot = 0; slot < shape[0]; ++slot)
        if (gates[static_cast<std::size_t>(slot)] != 0) open[slot] = gates[static_cast<std::size_t>(slot)];
    if (open.empty()) open[0] = 0;  // PEFT chooses modules by the last part of their names, and would miss one
    return open;
}

std::vector<ValueFile> Exporter::plan_base() const {
    std::vector<ValueFile> files(1);
    std::uint64_t bytes = 0;
    for (const Shard& weight : weights_) {
        const SafetensorsTensor target{weight.name, request_.dtype, weight.global};
        if (bytes > 0 && bytes + target.bytes() > request_.max_shard_bytes) {
            files.emplace_back();
            bytes = 0;
        }
        Item& item = files.back().items.emplace_back(Item{weight, target});
        if (const auto factor = base_factors_.find(weight.name); factor != base_factors_.end())
            item.base = factor->second;
        bytes += target.bytes();
        const std::string module = module_of(weight);
        if (!biased_.contains(module)) continue;
        const Shape shape{weight.global[0]};
        files.back().items.push_back({{module + ".lora_bias", shape, 0, 0, shape[0], 1},
                                      {module + ".bias", request_.dtype, shape}});
        bytes += files.back().items.back().target.bytes();
    }
    for (std::size_t i = 0; i < files.size(); ++i)
        files[i].name = base_folder() + (files.size() == 1 ? "model.safetensors"
                                                           : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                                         i + 1, files.size()));
    return files;
}

std::vector<ValueFile> Exporter::plan_adapter() const {
    if (!request_.adapters) return {};
    ValueFile file{"adapter/adapter_model.safetensors", {}};
    for (const AdapterModule& module : modules_)
        for (const char* factor : {"lora_A", "lora_B"}) {
            const std::string name = module.name + "." + factor;
            const Shape shape = reader_->shape("/model/" + name);
            file.items.push_back({{name, shape, 0, 0, shape[0], shape[1]},
                                  {peft_name(module.name, factor), request_.dtype, shape},
                                  true});
            if (const auto open = open_slots_.find(module.name); open != open_slots_.end()) {
                Item& item = file.items.back();
                for (const auto& [slot, gate] : open->second) {
                    item.slots.push_back(slot);
                    item.gates.push_back(gate);
                }
                item.rows_are_slots = std::string(factor) == "lora_A";
                item.target.shape = item.rows_are_slots ? Shape{module.low_rank, shape[1]}
                                                        : Shape{shape[0], module.low_rank};
            }
        }
    for (const AdapterModule& module : modules_)
        if (module.magnitude) {
            const std::string name = module.name + ".lora_magnitude";
            const Shape shape = reader_->shape("/model/" + name);
            file.items.push_back({{name, shape, 0, 0, shape[0], 1},
                                  {peft_name(module.name, "lora_magnitude"), request_.dtype, shape}});
        }
    return {file};
}

void Exporter::write_small_files(const NewDirectory& directory, const std::vector<ValueFile>& base) const {
    const std::string folder = base_folder();
    if (request_.adapters) {
        directory.make_folder("base");
        directory.make_folder("adapter");
        const auto path = std::filesystem::absolute(request_.directory) / "base";
        directory.write_json("adapter/adapter_config.json", peft_config(modules_, path.string()));
    }
    LlamaFacts facts{config_.data.seq_len, request_.dtype, {}, {}, !biased_.empty()};
    ordered_json generation{{"do_sample", true},
                            {"temperature", GenerationSettings().temperature},
                            {"top_k", GenerationSettings().top_k}};
    if (tokenizer_) {
        facts.first_token = tokenizer_->first_token();
        facts.end_token = tokenizer_->end;
        generation["bos_token_id"] = *facts.first_token;
        generation["eos_token_id"] = generation["pad_token_id"] = *facts.end_token;
        write_tokenizer(directory, facts);
    }
    directory.write_json(folder + "config.json", llama_config(config_.model, facts));
    directory.write_json(folder + "generation_config.json", generation);
    if (base.size() == 1) return;
    std::uint64_t bytes = 0;
    ordered_json weight_map = ordered_json::object();
    for (const ValueFile& file : base)
        for (const Item& item : file.items) {
            weight_map[item.target.name] = file.name.substr(folder.size());
            bytes += item.target.bytes();
        }
    directory.write_json(folder + "model.safetensors.index.json",
                         {{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}});
}

void Exporter::write_tokenizer(const NewDirectory& directory, const LlamaFacts& facts) const {
    const std::string folder = base_folder();
    const ExportedTokenizer& tokenizer = *tokenizer_;
    if (tokenizer.stored) {
        write_file(directory.file(folder + "tokenizer.json"), tokenizer.bytes);
        directory.write_json(folder + "tokenizer_config.json", tokenizer.stored->tokenizer_config(facts));
        return;
    }
    write_file(directory.file(folder + "tokenizer.model"), tokenizer.bytes);
    if (tokenizer.json.content.is_null()) return;
    write_file(directory.file(folder + "tokenizer.json"), tokenizer.json.content.dump());
    directory.write_json(folder + "tokenizer_config.json",
                         llama_tokenizer_config(Tokenizer(tokenizer.bytes), facts, tokenizer.begins_texts));
}

/// The slots of a factor that are written; columns of B times their gates.
void copy_open_slots(const Item& item, Tensor factor, Tensor gates, Tensor open) {
    kernels::RowBatch copies;
    for (std::size_t i = 0; i < item.slots.size(); ++i) {
        const auto to = static_cast<std::int64_t>(i);
        const auto slot = [&](Tensor t, std::int64_t at) {
            return item.rows_are_slots
                       ? kernels::RowPart{t, kernels::Rows::range(at, 1), 0, t.dim(1)}
                       : kernels::RowPart{t, kernels::Rows::range(0, t.dim(0)), at, 1};
        };
        copies.copy(slot(factor, item.slots[i]), slot(open, to));
    }
    copies.run();
    const kernels::RowPart all = kernels::whole_rows(open);
    if (!item.rows_are_slots) kernels::scale_columns({.from = all, .factors = gates, .to = all});
}

void scale(Tensor x, double factor) {
    Tensor factors;
    const Arena arena = allocate_scratch(
        [&](Arena& a) { factors = a.take(MemoryClass::workspace, DType::f64, {x.dim(0)}); });
    kernels::fill(factors, factor);
    kernels::scale_rows(x, factors);
}

void Exporter::write_values(const NewDirectory& directory, const ValueFile& file) const {
    const Topology alone = Topology::imaginary(1, 1, 0);
    Arena none;
    Traffic traffic;
    const ModelContext context{config_, alone, none, traffic, dtype_from_name(config_.run.dtype), 1, 1};
    const WeightReader weights(context, *reader_);
    std::vector<SafetensorsTensor> targets;
    for (const Item& item : file.items) targets.push_back(item.target);
    SafetensorsWriter writer(directory.file(file.name), targets);
    std::vector<std::byte> block;
    for (const Item& item : file.items) {
        Tensor whole, full, stored, gates;
        const auto open = static_cast<std::int64_t>(item.slots.size());
        const Arena arena = allocate_scratch([&](Arena& a) {
            full = a.take(MemoryClass::workspace, context.accumulate(), item.target.shape);
            if (open > 0) {
                whole = a.take(MemoryClass::workspace, context.accumulate(), item.source.global);
                gates = a.take(MemoryClass::workspace, DType::f64, {open});
            }
            stored = full.dtype() == request_.dtype
                         ? full
                         : a.take(MemoryClass::workspace, request_.dtype, item.target.shape);
        });
        item.factor ? weights.factor(item.source, open > 0 ? whole : full)
                    : weights.weight(item.source, !request_.adapters, full);
        if (open > 0) {
            kernels::upload(item.gates.data(), gates);
            copy_open_slots(item, whole, gates, full);
        }
        if (item.base != 1) scale(full, item.base);
        if (stored.dtype() != full.dtype()) kernels::copy(full, stored);
        const std::int64_t rows = stored.dim(0);
        const std::int64_t row_bytes = static_cast<std::int64_t>(stored.bytes()) / rows;
        const std::int64_t step = std::max<std::int64_t>(1, (8 << 20) / row_bytes);
        for (std::int64_t row = 0; row < rows; row += step) {
            const Tensor part = stored.rows(row, std::min(step, rows - row));
            block.resize(part.bytes());
            kernels::download(part, block.data());
            writer.append(block.data(), block.size());
        }
    }
    writer.finish();
    sync_directory(directory_of(directory.file(file.name)));
}

void Exporter::report(std::size_t num_files) const {
    std::int64_t values = 0;
    for (const Shard& weight : weights_) {
        values += weight.global.size();
        if (biased_.contains(module_of(weight))) values += weight.global[0];
    }
    print_result("{}: step {}, {} parameters in {} tensors and {} file{}, {}\n", request_.directory,
                 header_.step, values, weights_.size() + biased_.size(), num_files, num_files == 1 ? "" : "s",
                 name_of(request_.dtype));
    if (request_.adapters)
        print_result("  base/ holds frozen and dense weights, adapter/ the low-rank factors of {} matrices\n",
                     modules_.size());
    else if (!modules_.empty())
        print_result("  low-rank factors of {} matrices are merged\n", modules_.size());
    if (!biased_.empty())
        print_result("  {} matrices have a bias: config.json has attention_bias and mlp_bias\n", biased_.size());
    if (!tokenizer_) {
        print_result("  without tokenizer, as asked: no begin and end token is known\n");
        return;
    }
    if (tokenizer_->stored) {
        print_result("  tokenizer.json is the one stored with the tokens, byte for byte\n");
        if (tokenizer_->begins_texts)
            print_result(
                "  texts began with {} in training; whether they do now is up to its post_processor\n",
                quoted(tokenizer_->stored->piece(tokenizer_->first_token())));
        return;
    }
    const auto& differences = tokenizer_->json.differences;
    const bool usable = !tokenizer_->json.content.is_null();
    if (usable)
        print_result("  tokenizer.json gives the ids of the run's tokenizer{}\n",
                     differences.empty() ? "" : ", except for");
    else
        print_result("  no tokenizer.json (use tokenizer.model with SentencePiece), it would differ for\n");
    for (const std::string& difference : differences) print_result("    {}\n", difference);
}

}  // namespace

void export_weights(const Comm& world, const ExportRequest& request) {
    Exporter(world, request).run();
}

std::uint64_t bytes_from_text(const std::string& text, const std::string& option) {
    constexpr std::pair<const char*, double> units[] = {
        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}};
    std::string number = text;
    double unit = 1;
    for (const auto& [name, bytes] : units)
        if (text.ends_with(name)) {
            number = text.substr(0, text.size() - std::strlen(name));
            unit = bytes;
            break;
        }
    double value = 0;
    require(read_number(number, value) && value * unit >= 1 && value * unit <= 0x1p60,
            "{} = {} is not a size (bytes, or with a unit: KB, MB, GB, KiB, MiB, GiB); write {}=5GB", option,
            text, option);
    return static_cast<std::uint64_t>(value * unit);
}

}  // namespace switchyard
