// Unpacks the Chromium of the package, and the libraries that it needs; prints where they are.

import chromium, { inflate } from "@sparticuz/chromium"

const package_ = new URL("..", import.meta.resolve("@sparticuz/chromium"))
const libraries = await inflate(new URL("bin/al2023.tar.br", package_).pathname)
console.log(JSON.stringify({ executable: await chromium.executablePath(), libraries: `${libraries}/lib` }))
