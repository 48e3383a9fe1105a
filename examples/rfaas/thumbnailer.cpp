// A function of rFaaS's kind: makes a picture small. It is built as a shared library and sent to the executor.
#include <cstdint>
#include <cstring>
#include <vector>

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

static void shrink(const cv::Mat &picture, cv::Mat &thumbnail, int side) {
    cv::resize(picture, thumbnail, cv::Size(side, side), 0, 0, cv::INTER_AREA);
}

// Reads a picture in any format that OpenCV knows, and writes a JPEG of 200 x 200. Returns its size; 0 if the input is
// no picture.
extern "C" std::uint32_t thumbnailer(void *input, std::uint32_t size, void *output) {
    const cv::Mat encoded(1, static_cast<int>(size), CV_8UC1, input);
    const cv::Mat picture = cv::imdecode(encoded, cv::IMREAD_COLOR);
    if (picture.empty()) return 0;
    cv::Mat thumbnail;
    shrink(picture, thumbnail, 200);
    std::vector<unsigned char> jpeg;
    cv::imencode(".jpg", thumbnail, jpeg);
    std::memcpy(output, jpeg.data(), jpeg.size());
    return static_cast<std::uint32_t>(jpeg.size());
}
