// The bytes of an image file -> RGBA pixels as they are stored: no colour management, EXIF orientation applied,
// alpha not multiplied in. Python's OpenCV reads the same pixels, so the probability is the same.

/**
 * @param {Blob} blob image file
 * @returns {Promise<{rgba: Uint8ClampedArray, width: number, height: number}>}
 */
export async function decode(blob) {
  const bitmap = await createImageBitmap(blob, {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
    imageOrientation: "from-image",
  });
  const { width, height } = bitmap;
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    let rgba = context.getImageData(0, 0, width, height).data;
    if (!isOpaque(rgba)) rgba = straightAlpha(bitmap);
    return { rgba, width, height };
  } finally {
    bitmap.close();
  }
}

function isOpaque(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return false;
  return true;
}

/** A 2D canvas multiplies colours with alpha and loses what is transparent; a texture keeps them. */
function straightAlpha(bitmap) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) throw new Error("pictures with transparency need WebGL 2");
  const side = gl.getParameter(gl.MAX_TEXTURE_SIZE);
  if (width > side || height > side) throw new Error(`pictures with transparency: at most ${side} pixels a side here`);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  const rgba = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return new Uint8ClampedArray(rgba.buffer);
}
