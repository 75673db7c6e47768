"use strict";

Redoc.init("openapi.json", { hideDownloadButtons: false, scrollYOffset: 0 }, document.getElementById("ui"));
