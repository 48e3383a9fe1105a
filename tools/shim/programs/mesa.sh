# Mesa: EGL and Vulkan, drawn by the processor (libLLVM).
# Packages: mesa-utils-bin libegl1 libgl1-mesa-dri vulkan-tools mesa-vulkan-drivers
set -eu
[ "$1" = run ] || exit 0
export XDG_RUNTIME_DIR="$PWD" EGL_PLATFORM=surfaceless LIBGL_ALWAYS_SOFTWARE=1
eglinfo.x86_64-linux-gnu -B 2>&1 | grep -v '^$' || eglinfo.x86_64-linux-gnu 2>&1 | head -n 60
VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json vulkaninfo --summary 2>&1 | grep -v -i uuid
