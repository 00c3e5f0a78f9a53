// Images to embeddings with the C++ API of onnxruntime: embed MODEL < PIXELS
//
// PIXELS: one image after the other at the network's size, each height x width x 3 bytes, RGB, row by row.
// Prints one line for each image: its embedding, of length 1. MODEL takes uint8_nhwc, which export.py writes
// unless told otherwise, and any number of images at once.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

using Pixels = std::vector<uint8_t>;

static std::vector<float> embeddings(Ort::Session& session, Pixels& pixels, int64_t height, int64_t width) {
    const int64_t size = height * width * 3;
    const int64_t bytes = static_cast<int64_t>(pixels.size());
    if (bytes == 0 || bytes % size != 0)
        throw std::runtime_error("expected a multiple of " + std::to_string(size) + " bytes, got " +
                                 std::to_string(bytes));
    const std::array<int64_t, 4> shape = {bytes / size, height, width, 3};
    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const Ort::Value images =
        Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
    const char* input = "images";
    const char* output = "embeddings";
    const std::vector<Ort::Value> found = session.Run(Ort::RunOptions{}, &input, &images, 1, &output, 1);
    const float* values = found[0].GetTensorData<float>();
    return {values, values + found[0].GetTensorTypeAndShapeInfo().GetElementCount()};
}

static void run(const char* model) {
    const Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "kiln");
    Ort::Session session(environment, model, Ort::SessionOptions{});
    const std::vector<int64_t> shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    if (shape.size() != 4 || shape[3] != 3)
        throw std::runtime_error("the model does not take uint8_nhwc; export it with that input_format");
    Pixels pixels{std::istreambuf_iterator<char>(std::cin), {}};
    const std::vector<float> found = embeddings(session, pixels, shape[1], shape[2]);
    const size_t count = pixels.size() / (shape[1] * shape[2] * 3);
    const size_t dim = found.size() / count;
    for (size_t i = 0; i < found.size(); ++i)
        std::printf("%.9g%c", found[i], (i + 1) % dim ? ' ' : '\n');
}

int main(int argc, char** argv) {
    try {
        if (argc != 2) throw std::invalid_argument("usage: embed MODEL < PIXELS");
        run(argv[1]);
    } catch (const std::exception& error) {  // onnxruntime's too
        std::cerr << error.what() << '\n';
        return 2;
    }
}
