/* Unpack the page's scripts and run them, one after the other. */
async function unpacked(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
async function start() {
  for (const id of ["libraries", "script"]) {
    const script = document.createElement("script");
    script.textContent = await unpacked(id);
    document.body.append(script);
  }
}
start().catch((error) => {
  document.getElementById("panels").textContent =
    `The page cannot be shown: ${error.message}. It needs a browser of 2023 or newer.`;
});
