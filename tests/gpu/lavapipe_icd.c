// Makes Mesa's lavapipe the software adapter of Chromium's WebGPU: Dawn opens libvk_swiftshader.so, which this becomes, and Chromium
// takes a software adapter only if it carries SwiftShader's ids. All else goes to lavapipe. For tests; see lavapipe.sh.
#define VK_NO_PROTOTYPES
#include <dlfcn.h>
#include <string.h>
#include <vulkan/vulkan.h>

static PFN_vkGetInstanceProcAddr lavapipe(void) {
  static PFN_vkGetInstanceProcAddr get;
  if (!get) {
    void *library = dlopen("libvulkan_lvp.so", RTLD_NOW | RTLD_LOCAL);
    if (library) get = (PFN_vkGetInstanceProcAddr)dlsym(library, "vk_icdGetInstanceProcAddr");
  }
  return get;
}

static PFN_vkGetPhysicalDeviceProperties properties;
static PFN_vkGetPhysicalDeviceProperties2 properties_2;

static void disguise(VkPhysicalDeviceProperties *p) {
  p->vendorID = 0x1AE0;
  p->deviceID = 0xC0DE;
}

static VKAPI_ATTR void VKAPI_CALL disguised(VkPhysicalDevice device, VkPhysicalDeviceProperties *p) {
  properties(device, p);
  disguise(p);
}

static VKAPI_ATTR void VKAPI_CALL disguised_2(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *p) {
  properties_2(device, p);
  disguise(&p->properties);
}

__attribute__((visibility("default"))) PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char *name) {
  PFN_vkGetInstanceProcAddr get = lavapipe();
  PFN_vkVoidFunction found = get ? get(instance, name) : NULL;
  if (!found) return NULL;
  if (!strcmp(name, "vkGetPhysicalDeviceProperties")) {
    properties = (PFN_vkGetPhysicalDeviceProperties)found;
    return (PFN_vkVoidFunction)disguised;
  }
  if (!strcmp(name, "vkGetPhysicalDeviceProperties2") || !strcmp(name, "vkGetPhysicalDeviceProperties2KHR")) {
    properties_2 = (PFN_vkGetPhysicalDeviceProperties2)found;
    return (PFN_vkVoidFunction)disguised_2;
  }
  return found;
}
