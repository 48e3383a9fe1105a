// An addon for Node that loads other addons from bytes. index.js is its interface.
//
// Node knows three ways in which an addon says how it is initialised: by a symbol with a fixed name (Node-API, and
// addons of V8's API that are made for workers), or by a call from its constructors. All of them become what Node calls
// a linked binding, which process._linkedBinding() initialises in the environment that asks.
#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <node.h>
#include <node_api.h>
#include <v8.h>

#include <memdl.hpp>

namespace {

// How an addon is initialised.
struct Addon {
    std::string name;
    napi_addon_register_func node_api = nullptr;
    std::int32_t node_api_version = NODE_API_DEFAULT_MODULE_API_VERSION;
    node::addon_context_register_func context_aware = nullptr;
    // What its constructors registered.
    node::node_module *registered = nullptr;
    napi_module *registered_node_api = nullptr;
};

// The call that an addon makes in its constructors is answered in the thread that loads it.
thread_local Addon *loading = nullptr;

void on_node_module_register(void *module) {
    if (loading) loading->registered = static_cast<node::node_module *>(module);
}
void on_napi_module_register(napi_module *module) {
    if (loading) loading->registered_node_api = module;
}

// What all environments of the process share. Addons stay loaded, as Node's own do while their environment is there:
// objects that JavaScript has may have their code.
class Process {
  public:
    static Process &get() {
        // Never destroyed: other threads may run when the process ends.
        static Process *process = new Process;
        return *process;
    }

    void provide(std::string name, memdl::buffer bytes) {
        std::lock_guard<std::mutex> lock(provided_mutex_);
        provided_.emplace(std::move(name), std::move(bytes));
    }

    const Addon &load(const std::string &name, memdl::buffer bytes) {
        std::lock_guard<std::mutex> lock(addons_mutex_);
        const auto found = addons_.find(name);
        if (found != addons_.end()) return found->second;
        Addon addon;
        addon.name = name;
        loading = &addon;
        try {
            libraries_.push_back(memdl::library::open(std::move(bytes), options(name)));
        } catch (...) {
            loading = nullptr;
            throw;
        }
        loading = nullptr;
        const memdl::library &library = libraries_.back();
        addon.node_api = library.find<std::remove_pointer_t<napi_addon_register_func>>("napi_register_module_v1");
        if (auto version = library.find<std::int32_t()>("node_api_module_get_api_version_v1"))
            addon.node_api_version = version();
        addon.context_aware = library.find<std::remove_pointer_t<node::addon_context_register_func>>(
            "node_register_module_v" + std::to_string(NODE_MODULE_VERSION));
        if (!addon.node_api && !addon.context_aware && !addon.registered && !addon.registered_node_api)
            throw std::runtime_error(name + " is no addon, or one for another version of Node: it has no symbol " +
                                     "napi_register_module_v1 or node_register_module_v" +
                                     std::to_string(NODE_MODULE_VERSION));
        return addons_.emplace(name, std::move(addon)).first->second;
    }

  private:
    memdl::options options(const std::string &name) {
        return memdl::options()
            .name(name)
            .name_space(space_)
            .define("node_module_register", &on_node_module_register)
            .define("napi_module_register", &on_napi_module_register)
            .provider([this](const memdl_library_request &request) -> memdl::provided {
                std::lock_guard<std::mutex> lock(provided_mutex_);
                const auto found = provided_.find(request.name);
                if (found == provided_.end()) return {};
                // It is asked once: all addons are in one namespace.
                memdl::buffer bytes = std::move(found->second);
                provided_.erase(found);
                return bytes;
            });
    }

    std::mutex provided_mutex_;
    std::map<std::string, memdl::buffer> provided_;
    std::mutex addons_mutex_;
    memdl::name_space space_;
    std::vector<memdl::library> libraries_;
    std::map<std::string, Addon> addons_;
};

// Makes an addon a linked binding of the current environment.
void add_binding(const Addon &addon) {
    const v8::Local<v8::Context> context = v8::Isolate::GetCurrent()->GetCurrentContext();
    node::Environment *environment = node::GetCurrentEnvironment(context);
    const char *name = addon.name.c_str();
    if (addon.context_aware) return node::AddLinkedBinding(environment, name, addon.context_aware, nullptr);
    if (addon.node_api) return node::AddLinkedBinding(environment, name, addon.node_api, addon.node_api_version);
    if (addon.registered_node_api) {
        napi_module module = *addon.registered_node_api;
        module.nm_modname = name;
        return node::AddLinkedBinding(environment, module);
    }
    node::node_module module = *addon.registered;
    module.nm_modname = name;
    module.nm_flags |= 2; // NM_F_LINKED
    node::AddLinkedBinding(environment, module);
}

// The two arguments of both functions, a name and a Uint8Array, whose bytes are copied to where the library will run.
// Without them, a TypeError is thrown.
std::optional<std::pair<std::string, memdl::buffer>> arguments(napi_env env, napi_callback_info info) {
    std::size_t count = 2, len = 0, offset = 0;
    napi_value values[2], buffer;
    napi_typedarray_type type;
    void *data = nullptr;
    std::string name;
    if (napi_get_cb_info(env, info, &count, values, nullptr, nullptr) != napi_ok || count < 2 ||
        napi_get_value_string_utf8(env, values[0], nullptr, 0, &len) != napi_ok) {
        napi_throw_type_error(env, nullptr, "expected a name and a Uint8Array");
        return std::nullopt;
    }
    name.resize(len + 1);
    napi_get_value_string_utf8(env, values[0], &name[0], name.size(), &len);
    name.resize(len);
    if (napi_get_typedarray_info(env, values[1], &type, &len, &data, &buffer, &offset) != napi_ok ||
        type != napi_uint8_array) {
        napi_throw_type_error(env, nullptr, "expected a name and a Uint8Array");
        return std::nullopt;
    }
    memdl::buffer bytes(len);
    std::copy_n(static_cast<const unsigned char *>(data), len, bytes.begin());
    return std::make_pair(std::move(name), std::move(bytes));
}

template <class Action> napi_value guarded(napi_env env, napi_callback_info info, Action action) {
    try {
        if (auto given = arguments(env, info)) action(std::move(given->first), std::move(given->second));
    } catch (const std::exception &error) {
        napi_throw_error(env, "ERR_DLOPEN_FAILED", error.what());
    }
    return nullptr;
}

napi_value load(napi_env env, napi_callback_info info) {
    return guarded(env, info, [](std::string name, memdl::buffer bytes) {
        add_binding(Process::get().load(name, std::move(bytes)));
    });
}

napi_value provide(napi_env env, napi_callback_info info) {
    return guarded(env, info, [](std::string name, memdl::buffer bytes) {
        Process::get().provide(std::move(name), std::move(bytes));
    });
}

} // namespace

NAPI_MODULE_INIT() {
    const napi_property_descriptor functions[] = {
        {"load", nullptr, load, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
        {"provide", nullptr, provide, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
    };
    napi_define_properties(env, exports, 2, functions);
    return exports;
}
