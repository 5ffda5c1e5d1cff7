// A model in LiteRT, through its C API, which is found in libLiteRt.so when the program runs. The
// wheel of ai-edge-litert brings that library and no header: these are the declarations that are
// needed (litert/c/*.h, Apache-2.0), as they are since version 2.1.6.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

class LiteRt {
 public:
  // The type of an input or output: "int8", and its shape with the batch.
  struct Type {
    int32_t element = 0;
    uint32_t rank = 0;  // 7 bits of it; the 8th says whether there are strides
    int32_t dimensions[8] = {};
    uint32_t strides[8] = {};
    size_t bytes = 1;  // of this sample's; what stands before it is LiteRtRankedTensorType

    Type(const std::string& dtype, const std::vector<int>& shape) : rank(uint32_t(shape.size())) {
      if (dtype == "float32") element = 1, bytes = 4;
      else if (dtype == "uint8") element = 3;
      else if (dtype == "int16") element = 7, bytes = 2;
      else if (dtype == "int8") element = 9;
      else throw std::runtime_error("no type of this sample's: " + dtype);
      if (shape.size() > 8) throw std::runtime_error("more than 8 dimensions");
      for (size_t i = 0; i < shape.size(); i++) bytes *= dimensions[i] = shape[i];
      static_assert(offsetof(Type, bytes) == 72, "LiteRT's structure has another size");
    }
  };

  LiteRt(const std::string& library, const std::string& model, const Type& in, const Type& out)
      : in_bytes_(in.bytes), out_bytes_(out.bytes) {
    library_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library_) throw std::runtime_error(dlerror());
    symbol<int>("LiteRtCreateModelFromFd");  // earlier versions take other arguments
    check("an environment", symbol<int(int, const void*, void**)>("LiteRtCreateEnvironment")(
        0, nullptr, &environment_));
    check("the file", symbol<int(void*, const char*, void**)>("LiteRtCreateModelFromFile")(
        environment_, model.c_str(), &model_));
    check("options", symbol<int(void**)>("LiteRtCreateOptions")(&options_));
    check("the CPU", symbol<int(void*, int)>("LiteRtSetOptionsHardwareAccelerators")(options_, 1));
    check("the model", symbol<int(void*, void*, void*, void**)>("LiteRtCreateCompiledModel")(
        environment_, model_, options_, &compiled_));
    input_ = buffer("LiteRtGetCompiledModelInputBufferRequirements", in);
    output_ = buffer("LiteRtGetCompiledModelOutputBufferRequirements", out);
    run_ = symbol<Run>("LiteRtRunCompiledModel");
    lock_ = symbol<Lock>("LiteRtLockTensorBuffer");
    unlock_ = symbol<int(void*)>("LiteRtUnlockTensorBuffer");
  }
  LiteRt(const LiteRt&) = delete;
  LiteRt& operator=(const LiteRt&) = delete;
  ~LiteRt() {
    const auto destroy = [this](const char* name, void* what) {
      if (what) symbol<void(void*)>(name)(what);
    };
    destroy("LiteRtDestroyTensorBuffer", output_);
    destroy("LiteRtDestroyTensorBuffer", input_);
    destroy("LiteRtDestroyCompiledModel", compiled_);
    destroy("LiteRtDestroyOptions", options_);
    destroy("LiteRtDestroyModel", model_);
    destroy("LiteRtDestroyEnvironment", environment_);
  }

  // The outputs' bytes for an input's.
  std::vector<char> run(const char* in) {
    void* memory = nullptr;
    check("the input", lock_(input_, &memory, 1));
    std::memcpy(memory, in, in_bytes_);
    check("the input", unlock_(input_));
    check("the model", run_(compiled_, 0, 1, &input_, 1, &output_));
    std::vector<char> found(out_bytes_);
    check("the output", lock_(output_, &memory, 0));
    std::memcpy(found.data(), memory, out_bytes_);
    check("the output", unlock_(output_));
    return found;
  }

 private:
  using Run = int(void*, size_t, size_t, void**, size_t, void**);
  using Lock = int(void*, void**, int);

  template <typename Function>
  Function* symbol(const char* name) const {
    void* found = dlsym(library_, name);
    if (!found) throw std::runtime_error("the library has no " + std::string(name) +
                                         ": it has to be LiteRT 2.1.6 or later");
    return reinterpret_cast<Function*>(found);
  }
  static void check(const char* what, int status) {
    if (status) throw std::runtime_error("LiteRT refuses " + std::string(what) + " (status " +
                                         std::to_string(status) + ")");
  }
  void* buffer(const char* requirements, const Type& type) {
    void *needs = nullptr, *made = nullptr;
    size_t size = 0;
    check("to say what it needs", symbol<int(void*, size_t, size_t, void**)>(requirements)(
        compiled_, 0, 0, &needs));
    check("to say how much", symbol<int(void*, size_t*)>(
        "LiteRtGetTensorBufferRequirementsBufferSize")(needs, &size));
    if (size < type.bytes) throw std::runtime_error("the model has another input or output");
    check("a buffer", symbol<int(void*, const void*, void*, void**)>(
        "LiteRtCreateManagedTensorBufferFromRequirements")(environment_, &type, needs, &made));
    return made;
  }

  void *library_ = nullptr, *environment_ = nullptr, *model_ = nullptr, *options_ = nullptr,
       *compiled_ = nullptr, *input_ = nullptr, *output_ = nullptr;
  size_t in_bytes_, out_bytes_;
  Run* run_ = nullptr;
  Lock* lock_ = nullptr;
  int (*unlock_)(void*) = nullptr;
};
