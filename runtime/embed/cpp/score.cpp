// score MODEL FRAMES N H W: prints probability and logits of raw uint8 BGR frames as JSON.
//
// The exported file holds preprocessing, network and calibration, so this is all that a program needs:
// onnxruntime's C API, and the bytes of N frames of H x W pixels in the order B, G, R.

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

namespace {

const OrtApi *api = nullptr;

// Ends the program with onnxruntime's message if a call failed.
void check(OrtStatus *status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "score: %s\n", api->GetErrorMessage(status));
  std::exit(2);
}

void print(const char *name, OrtValue *value, const char *end) {
  OrtTensorTypeAndShapeInfo *info = nullptr;
  size_t count = 0;
  float *values = nullptr;
  check(api->GetTensorTypeAndShape(value, &info));
  check(api->GetTensorShapeElementCount(info, &count));
  check(api->GetTensorMutableData(value, reinterpret_cast<void **>(&values)));
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < count; ++i) std::printf("%s%.9g", i ? ", " : "", values[i]);
  std::printf("]%s", end);
  api->ReleaseTensorTypeAndShapeInfo(info);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: score MODEL FRAMES N H W\n");
    return 2;
  }
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // before the first call: nothing leaves this machine
  api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    std::fprintf(stderr, "score: this onnxruntime is older than its headers (API %d)\n", ORT_API_VERSION);
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  std::vector<uint8_t> frames{std::istreambuf_iterator<char>(file), {}};
  const int64_t shape[] = {std::atoll(argv[3]), std::atoll(argv[4]), std::atoll(argv[5]), 3};
  if (frames.empty() || static_cast<int64_t>(frames.size()) != shape[0] * shape[1] * shape[2] * 3) {
    std::fprintf(stderr, "score: %s: expected N * H * W * 3 bytes, found %zu\n", argv[2], frames.size());
    return 2;
  }

  OrtEnv *env = nullptr;
  OrtSessionOptions *options = nullptr;
  OrtSession *session = nullptr;
  OrtMemoryInfo *memory = nullptr;
  OrtValue *input = nullptr;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "score", &env));
  check(api->CreateSessionOptions(&options));
  check(api->CreateSession(env, argv[1], options, &session));
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  check(api->CreateTensorWithDataAsOrtValue(memory, frames.data(), frames.size(), shape, 4,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &input));
  const char *const inputs[] = {"frames"};
  const char *const outputs[] = {"probability", "logits"};
  OrtValue *results[] = {nullptr, nullptr};
  check(api->Run(session, nullptr, inputs, &input, 1, outputs, 2, results));

  std::printf("{");
  print("probability", results[0], ", ");
  print("logits", results[1], "}\n");

  for (OrtValue *result : results) api->ReleaseValue(result);
  api->ReleaseValue(input);
  api->ReleaseMemoryInfo(memory);
  api->ReleaseSession(session);
  api->ReleaseSessionOptions(options);
  api->ReleaseEnv(env);
  return 0;
}
